"""A vault whose clock a test moves, and the steps of documents' lives in it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from tests.fixtures_server import PORTING, in_pieces
from vault.actions.approvals import approve, request_approval
from vault.actions.expire import expire
from vault.actions.holds import place_hold, release_hold
from vault.actions.ingest import Upload, ingest
from vault.actions.orders import change_order, create_order
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.approvals import Act, Terms
from vault.domain.documents import Document, Kind
from vault.domain.holds import Targets
from vault.domain.orders import Status
from vault.sql import documents as documents_sql
from vault.sql.connection import connection

DPO = Principal("token:dpo", "dpo", frozenset({"uk"}))
OTHER_DPO = Principal("token:other-dpo", "dpo", frozenset({"uk"}))
COMPLIANCE = Principal("token:compliance", "compliance", frozenset({"uk"}))
ADMIN = Principal("token:admin", "admin", frozenset({"uk", "sg"}))
PDF = b"%PDF-1.4\n%" + b"letter of authorisation " * 40
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + bytes(200)
YEARS = 200 * 365 * 86400.0


class Clock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0)

    def __call__(self) -> datetime:
        """Return the time."""
        self.now += timedelta(microseconds=1)
        return self.now

    def forward(self, **span: float) -> None:
        """Let time pass."""
        self.now += timedelta(**span)


@asynccontextmanager
async def clocked(config: Config, **changes: Any) -> AsyncIterator[tuple[Vault, Clock]]:
    """Open a vault on a clock of the test's; what the database's clock says does not matter."""
    clock = Clock()
    settings: dict[str, Any] = {
        "clock_ahead_seconds_max": YEARS,
        "clock_step_seconds_max": YEARS,
        "database_timeout_seconds": 60.0,
        "record_timeout_seconds": 3.0,
        "regions": ("uk",),
        "approval_seconds": 86400.0,
        **changes,
    }
    async with open_vault(replace(config, **settings), dsn=config.database) as vault:
        yield replace(vault, clock=clock), clock


def after(vault: Vault, time: timedelta) -> Vault:
    """Return the vault as it will be then, where nobody minds how far its clock went."""
    far = replace(vault.config, clock_ahead_seconds_max=YEARS, clock_step_seconds_max=YEARS)
    return replace(vault, config=far, clock=lambda: vault.clock() + time)


async def new_order(vault: Vault, customer: str = "acme") -> UUID:
    """Open an order."""
    view = await create_order(
        vault, PORTING, region="uk", customer=customer, numbers=["+442079460123"]
    )
    return view.order.id


async def put(vault: Vault, order: UUID, kind: Kind = Kind.PASSPORT) -> UUID:
    """Upload a document."""
    content = PDF if kind in (Kind.LOA, Kind.INVOICE, Kind.CSR) else JPEG
    upload = Upload(in_pieces(content), None, None, len(content), None)
    return (await ingest(vault, PORTING, order, kind, upload)).id


async def end(vault: Vault, order: UUID, status: Status = Status.PORTED) -> None:
    """End an order."""
    await change_order(vault, PORTING, order, status)


async def look(vault: Vault, document: UUID) -> Document:
    """Return a document's row."""
    async with connection(vault.pool) as conn:
        found = await documents_sql.find(conn, document)
    assert found is not None
    return found


async def custody(vault: Vault, document: UUID) -> str:
    """Return where a document stands."""
    return (await look(vault, document)).custody.value


async def sweep(vault: Vault) -> int:
    """Let the worker do all that is due; returns how much there was."""
    done = 0
    while found := await expire(vault, "uk"):
        done += found
    return done


async def hold(vault: Vault, **targets: Any) -> UUID:
    """Place a hold."""
    view = await place_hold(
        vault,
        DPO,
        region="uk",
        reason="a dispute",
        authority="legal counsel",
        reference="C-7",
        targets=Targets(**targets),
    )
    return view.hold.id


async def agreed(vault: Vault, hold_id: UUID) -> UUID:
    """Have the release of a hold agreed to by somebody else; returns the approval."""
    terms = Terms(Act.HOLD_RELEASE, str(hold_id), "uk")
    asked = await request_approval(vault, DPO, terms, reason="case-closed")
    await approve(vault, OTHER_DPO, asked.id)
    return asked.id


async def release(vault: Vault, hold_id: UUID) -> None:
    """Release a hold with four eyes."""
    await release_hold(vault, DPO, hold_id, "the dispute ended", await agreed(vault, hold_id))
