"""
A process that uploads, reads and shreds for some seconds: `python -m tests.key_worker DSN PLACE N`.

Prints as JSON what it kept, what it shredded, how often it read, and every failure.
"""

import asyncio
import json
import random
import sys
import time
from pathlib import Path
from uuid import UUID, uuid4

from keys.errors import KeysError, StaleScopeError
from tests.key_house import REGION, House, build, wrapped_of

ATTEMPTS = 20


async def upload(house: House, scope: UUID) -> UUID:
    """Keep a key in a scope that is sealed again and again; wraps it anew when it must."""
    identity = uuid4()
    key, wrapped = await house.keyring.new_key(REGION, scope, identity)
    for _ in range(ATTEMPTS):
        try:
            async with house.pool.acquire() as conn, conn.transaction():
                await house.keyring.insert_key(conn, wrapped)
        except StaleScopeError:
            wrapped = await house.keyring.rewrap(key, wrapped)
        else:
            house.data_keys[identity], house.scopes[identity] = key.reveal(), scope
            return identity
    raise KeysError("an upload was always too late")


async def read(house: House, identity: UUID) -> None:
    """Open a key, from its row anew when a seal came between."""
    for _ in range(ATTEMPTS):
        async with house.pool.acquire() as conn:
            (row,) = await conn.fetch(
                "select id, region, scope, scope_epoch, wrap from data_key where id = $1", identity
            )
        try:
            opened = await house.keyring.open_key(wrapped_of(row))
        except StaleScopeError:
            continue
        if opened.reveal() != house.data_keys[identity]:
            raise KeysError("a read gave another key")
        return
    raise KeysError("a read was always too late")


async def work(dsn: str, place: Path, seconds: float) -> None:
    """Do a little of everything until the time is over."""
    failures, reads = list[str](), 0
    async with build(dsn, place) as house:
        await house.keyring.start_region(REGION)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                (first,) = await house.put()
                second = await upload(house, house.scopes[first])
                for _ in range(4):
                    await read(house, random.choice(house.living))
                    reads += 1
                await house.shred(random.choice((first, second)))
            except Exception as error:  # noqa: BLE001 - every failure is told
                failures.append(f"{type(error).__name__}: {error}")
        kept = {str(key): house.data_keys[key].hex() for key in house.living}
        shredded = [str(key) for key in house.shredded]
    print(json.dumps({"kept": kept, "shredded": shredded, "reads": reads, "failures": failures}))


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
