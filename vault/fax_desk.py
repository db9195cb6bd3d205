"""What one process keeps of the faxes that it receives; nothing of it is missed afterwards."""

import asyncio
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(slots=True)
class FaxScope:
    """A region's scope in the key tree that takes the next faxes of this process."""

    id: UUID | None = None
    faxes: int = 0
    opened_at: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class FaxDesk:
    """The scopes that are being filled, by region."""

    scopes: dict[str, FaxScope] = field(default_factory=dict)
