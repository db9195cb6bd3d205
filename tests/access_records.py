"""Access records for tests, each of its own."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

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
