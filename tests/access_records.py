"""Access records for tests, each of its own, and the published log as others read it."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.tlog_client import read_log
from vault.context import Vault
from vault.domain.records import Record


def record(region: str = "uk", **fields: Any) -> Record:
    """Return a refused intent, which needs no outcome."""
    made = Record(
        id=uuid.uuid4(),
        region=region,
        at=datetime.now(UTC),
        phase="intent",
        principal="token:x",
        role="porting",
        action="document.read",
        decision="deny",
        reason="role-may-not",
    )
    return replace(made, **fields)


async def append(vault: Vault, number: int, region: str = "uk", **fields: Any) -> list[Record]:
    """Append so many records."""
    made = [record(region, **fields) for _ in range(number)]
    await vault.recorder.append_many(made)
    return made


def checkpoints(log: Path) -> list[Path]:
    """Return the checkpoints of a bucket's log, that of the largest size last."""
    return sorted(log.glob("checkpoint-*"))


async def read_published(log: Path, vkey: str) -> list[bytes]:
    """Check a bucket's log as somebody does who knows nothing of us; returns its entries."""

    async def fetch(path: str) -> bytes:
        return (checkpoints(log)[-1] if path == "checkpoint" else log / path).read_bytes()

    return await read_log(fetch, vkey, "portvault/uk")
