"""
What is sealed and damaged or lost, taken from a backup: it is believed for what it opens under.

A backup is input from outside. The key above stands in the tree as it is now, and the place is part
of what is sealed, so nothing but what the vault itself had sealed for this row ever opens.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from keys.damage import Damage
from keys.errors import IntegrityError, StaleScopeError
from keys.keyring import WrappedKey
from vault.context import Vault
from vault.domain.documents import metadata_context
from vault.domain.orders import details_context
from vault.sql import damage as damage_sql
from vault.sql import documents as documents_sql
from vault.sql import orders as orders_sql
from vault.sql.connection import Connection, connection

#: Each column that is sealed under its row's key, and what it is sealed for.
SEALED: Mapping[tuple[str, str], Callable[[str, UUID], bytes]] = {
    ("document", "metadata"): metadata_context,
    ("fax", "metadata"): metadata_context,
    ("porting_order", "details"): details_context,
}


#: How COPY begins a column of bytes.
_BYTEA = b"\\\\x"


class Backup(Protocol):
    """A backup of the database, whose rows are text that nobody vouches for."""

    async def row(self, table: str, identity: UUID) -> Mapping[str, bytes] | None:
        """Return the columns of a row that are not null; None where it has no such row."""

    async def rows(
        self, table: str, identities: Collection[UUID]
    ) -> Mapping[UUID, Mapping[str, bytes]]:
        """Return the columns that are not null of those rows that it has."""


@dataclass(frozen=True, slots=True)
class Found:
    """A value that opens, and whether its row says another time of change than the backup."""

    value: bytes
    changed: bool


async def sealed_in(vault: Vault, backup: Backup, item: Damage) -> Found | None:
    """Return what a backup has of a damaged column, where it opens under the row's own key."""
    table, column, identity = item.table or "", item.column or "", UUID(item.id or "")
    row = await backup.row(table, identity)
    if row is None or column not in row:
        return None
    async with connection(vault.pool) as conn:
        wrapped = await _key_of(conn, table, identity)
        changed = await damage_sql.has_changed(conn, table, identity, row)
    if wrapped is None:
        return None
    try:
        value = _bytes_of(row[column])
        key = await vault.keyring.open_key(wrapped)
        key.open(value, SEALED[table, column](item.region, identity))
    except (ValueError, IntegrityError, StaleScopeError):
        return None
    return Found(value, changed)


async def keys_in(
    backup: Backup, region: str, wanted: Collection[UUID]
) -> dict[UUID, WrappedKey | None]:
    """
    Return the data keys that a backup has of those sought, in this region, None for an unreadable.

    The keyring puts one back only where it opens; that nothing of it was shredded it asks, too.
    """
    rows = await backup.rows("data_key", wanted)
    return {identity: _wrapped(region, identity, row) for identity, row in rows.items()}


def _wrapped(region: str, identity: UUID, row: Mapping[str, bytes]) -> WrappedKey | None:
    try:
        scope, epoch = UUID(row["scope"].decode()), int(row["scope_epoch"])
        return WrappedKey(identity, region, scope, epoch, _bytes_of(row["wrap"]))
    except (KeyError, ValueError):
        return None


def _bytes_of(text: bytes) -> bytes:
    """Return a column of bytes from its text; raises `ValueError` for any other."""
    if not text.startswith(_BYTEA):
        raise ValueError("no column of bytes")
    return bytes.fromhex(text[len(_BYTEA) :].decode())


async def _key_of(conn: Connection, table: str, identity: UUID) -> WrappedKey | None:
    if table == "fax":
        return (await damage_sql.fax_with_key(conn, identity))[1]
    if table == "porting_order":
        return await orders_sql.details_key(conn, identity)
    return (await documents_sql.find_with_key(conn, identity)).key
