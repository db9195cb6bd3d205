"""Many uploaders and readers in several processes, while the region is sealed all the time."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.key_house import REGION, House, Ledger, build

PROCESSES, SECONDS = 3, 6.0


async def start(house: House) -> dict[str, Any]:
    """Run a process to its end and return what it says."""
    arguments = ("-m", "tests.key_worker", house.dsn, str(house.place), str(SECONDS))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    said: dict[str, Any] = json.loads(out)
    return said


async def test_nothing_acknowledged_is_lost_and_no_read_fails(
    database: str, tmp_path: Path
) -> None:
    """Many upload, read and shred: no read fails but of what was shredded, and all kept opens."""
    async with build(database, tmp_path, Ledger()) as house:
        await house.keyring.start_region(REGION)
        workers = [asyncio.create_task(start(house)) for _ in range(PROCESSES)]
        seals = 0
        while not all(worker.done() for worker in workers):
            seals += await house.keyring.seal(REGION, force=True) is not None
        told = [worker.result() for worker in workers]
        assert not [failure for said in told for failure in said["failures"]]
        shredded = {key for said in told for key in said["shredded"]}
        for said in told:
            house.data_keys |= {
                UUID(key): bytes.fromhex(text) for key, text in said["kept"].items()
            }
            assert said["reads"] > 20
            # A reader found nothing only where somebody had shredded.
            assert set(said["gone"]) <= shredded
        assert shredded
        assert seals > 10
        await house.keyring.seal(REGION, force=True)
        await house.check()
