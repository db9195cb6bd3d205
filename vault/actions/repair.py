"""
Repair: mend what is damaged at rest from what is sound, and say of the rest what to do.

The key tree and its mirror mend each other (`keys/repair.py`); a row's stream header is taken from
its object, where that opens; what an order is found by is made anew from its details. Of a
document's object there is no second copy here; of encrypted names and details, and of a data key
that no segment of the mirror has, one may be in a backup (below); tiles of the published log are
written anew from a database whose log is the signed one. Whatever was shredded, by its row or by
the log, is left as it is.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Protocol, cast
from uuid import UUID

from keys.damage import Damage, DamagedError
from keys.errors import IntegrityError, StaleScopeError
from keys.keyring import Mend, WrappedKey
from keys.repair import tree_remedy
from keys.stream import HEADER_BYTES
from vault.actions.access import Access, recorded
from vault.actions.bucket import PREFIX
from vault.actions.log_publish import require_not_behind
from vault.actions.look import mend_checkpoint, mend_log, whole_look
from vault.actions.read import Stored, open_object
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.documents import OBJECTS_PREFIX, Document, metadata_context, object_name
from vault.domain.faxes import Fax
from vault.domain.orders import details_context
from vault.errors import ObjectMissingError
from vault.sql import damage as damage_sql
from vault.sql import documents as documents_sql
from vault.sql import order_details as details_sql
from vault.sql import orders as orders_sql
from vault.sql.connection import Connection, Pool, connection, transaction

# ---- What is encrypted and damaged or lost, taken from a backup: it is believed for what it opens
# under.
#
# A backup is input from outside. The key above stands in the tree as it is now, and the place is
# part of the context, so nothing but what the vault itself had encrypted for this row ever opens.

#: Each column that is encrypted under its row's key, and the context it is bound to.
ENCRYPTED: Mapping[tuple[str, str], Callable[[str, UUID], bytes]] = {
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


async def encrypted_in(vault: Vault, backup: Backup, item: Damage) -> Found | None:
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
        key.decrypt(value, ENCRYPTED[table, column](item.region, identity))
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


# ---- Repair. ------------------------------------------------------------------------------------

_BACKUP = (
    "a backup from before the damage holds it, sealed under the same key: `portvault repair "
    "--backup FILE` takes this one column of this row from it"
)
_NOT_IN_BACKUP = "the backup has no value of it that opens under its key: name an earlier one"
_SENDER = "ask its sender for it again; it ends as expired when its time is over"
#: What is to be done about each table's columns, but for those of the key tree.
_REMEDIES = {
    "document": _BACKUP,
    "fax": f"{_BACKUP}; or {_SENDER}",
    "porting_order": _BACKUP,
    "number_index": "the worker makes it anew from the order's details",
    "log_checkpoint": "the log is hashed anew with the next record, which a worker adds",
    "log_leaf": "nobody changes a row of the log: stop, and `portvault restore` the last backup, "
    "which takes over what was published",
}
_OBJECT = (
    "put back the object of this name from the bucket's own versions or copies, as it is; any that "
    "is not the very same does not open. If there is none, "
)
_DOCUMENT_OBJECT = (
    f"{_OBJECT}ask for the document again, and shred it (where the retention policy keeps it, two "
    "people agree to document.mistake: `portvault approval request --help`)"
)
_FAX_OBJECT = f"{_OBJECT}{_SENDER}"
_LOG = (
    "the database's log is not the one that was signed: stop, keep both, and compare with what the "
    "witnesses and auditors hold (`portvault log verify`)"
)


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair found in a region, and what became, or would become, of it."""

    region: str
    mends: tuple[Mend, ...]

    @property
    def left(self) -> int:
        """How much is not mended."""
        return sum(not mend.mended for mend in self.mends)


async def repair(
    vault: Vault,
    principal: Principal,
    region: str,
    *,
    dry_run: bool,
    backup: Backup | None = None,
) -> Repaired:
    """
    Look at everything of a region, and mend what can be; with `dry_run` only say what would be.

    What is encrypted in a row, or is the row of a data key, and has no other copy here, is taken
    from `backup` where it opens.
    Either way what was found is noted for the doctor, and what is sound by now is forgotten.
    Raises `RolledBackError` where the database is behind the bucket: that is a restore's to mend.
    """
    began_at = vault.clock()
    action = Action.DAMAGE_LOOK if dry_run else Action.DAMAGE_REPAIR
    async with recorded(vault, principal, action, region=region) as access:
        lost = await mend_checkpoint(vault, region, dry_run=True)
        beside = [_log_mend(lost[0], mended=lost[1])] if lost else list[Mend]()
        if lost and not lost[1]:
            # It may be the database that is wrong: nothing is changed from it.
            return Repaired(region, tuple(beside))
        async with connection(vault.pool) as conn:
            if not lost:
                await require_not_behind(vault, conn, region)

        async def inside(conn: Connection) -> None:
            # What hangs on the tree opens only there, until the dry run is undone.
            pool = cast("Pool", Inside(conn))
            undone = replace(vault, pool=pool, keyring=vault.keyring.over(pool))
            beside.extend(await _mend_beside(undone, region, backup, dry_run=True))

        mends = await vault.keyring.repair(
            region,
            _shredded,
            dry_run=dry_run,
            inside=inside,
            backup=partial(keys_in, backup) if backup is not None else None,
        )
        if not dry_run:
            if lost:
                # Only now: the mirror, too, has shown that the database is not behind.
                await mend_checkpoint(vault, region, dry_run=False)
            beside += await _mend_beside(vault, region, backup, dry_run=False)
        known = {mend.damage.place for mend in mends}
        # What many hang on is met with each of them.
        others = {mend.damage.place: mend for mend in beside if mend.damage.place not in known}
        mends += others.values()
        if dry_run:
            await _note(vault, region, [mend.damage for mend in mends], began_at)
        else:
            await _say(access, mends, region)
        return Repaired(region, tuple(mends))


class Inside:
    """One open transaction, in place of a pool."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    @asynccontextmanager
    async def acquire(self, *, timeout: float) -> AsyncIterator[Connection]:
        """Lend it; whoever has it waits for nobody."""
        del timeout
        yield self._conn


async def _mend_beside(
    vault: Vault, region: str, backup: Backup | None, *, dry_run: bool
) -> list[Mend]:
    mends = list[Mend]()
    async for item in whole_look(vault, region):
        if backup is not None and (item.table or "", item.column or "") in ENCRYPTED:
            mends.append(await _mend_encrypted(vault, item, backup, dry_run=dry_run))
        else:
            mends.append(await _mend(vault, item, dry_run=dry_run))
    return mends


async def _mend_encrypted(vault: Vault, item: Damage, backup: Backup, *, dry_run: bool) -> Mend:
    found = await encrypted_in(vault, backup, item)
    if found is None:
        return Mend(item, False, _NOT_IN_BACKUP)
    if not dry_run:
        async with transaction(vault.pool) as conn:
            await damage_sql.set_encrypted(
                conn, item.table or "", item.column or "", UUID(item.id or ""), found.value
            )
    said = "taken from the backup, where it opens under its key"
    if found.changed:
        said += "; its row has changed since, so look whether what it says is still right"
    return Mend(item, True, said)


async def _shredded(conn: Connection, things: Collection[UUID]) -> set[UUID]:
    return await damage_sql.shredded(conn, list(things))


async def _mend(vault: Vault, item: Damage, *, dry_run: bool) -> Mend:
    if item.column == "stream_header" and item.table and item.id:
        header = await _header_of(vault, item.table, UUID(item.id))
        if header is not None:
            if not dry_run:
                async with transaction(vault.pool) as conn:
                    await damage_sql.set_stream_header(conn, item.table, UUID(item.id), header)
            return Mend(item, True, "taken from its object, which opens")
    if item.object and item.object.startswith(PREFIX):
        return _log_mend(item, mended=await mend_log(vault, item, dry_run=dry_run))
    if item.table == "number_index" and item.id:
        if not dry_run:
            async with transaction(vault.pool) as conn:
                count = await details_sql.count_numbers(conn, UUID(item.id))
                await damage_sql.index_anew(conn, UUID(item.id), count)
        return Mend(item, True, "the worker makes it anew from the order's details")
    if item.object:
        return Mend(item, False, await _object_remedy(vault, item.object))
    return Mend(item, False, remedy(item))


def remedy(item: Damage) -> str:
    """Return what is to be done about a row that nothing here mends."""
    if item.table == "data_key":
        # What the tree's own repair has named has another word: this one it could not come to.
        return "repair what is above it in the key tree first; then repair again"
    return _REMEDIES.get(item.table or "") or tree_remedy(item)


async def _object_remedy(vault: Vault, name: str) -> str:
    identity = UUID(name.removeprefix(OBJECTS_PREFIX))
    async with connection(vault.pool) as conn:
        fax, _ = await damage_sql.fax_with_key(conn, identity)
    return _FAX_OBJECT if fax else _DOCUMENT_OBJECT


def _log_mend(item: Damage, *, mended: bool) -> Mend:
    return Mend(item, mended, "written anew from the database" if mended else _LOG)


async def _header_of(vault: Vault, table: str, identity: UUID) -> bytes | None:
    """Return what an object begins with, once all of it has opened as the row's key says."""
    async with connection(vault.pool) as conn:
        thing: Document | Fax | None
        if table == "fax":
            thing, wrapped = await damage_sql.fax_with_key(conn, identity)
        else:
            found = await documents_sql.find_with_key(conn, identity)
            thing, wrapped = found.document, found.key
    if thing is None or wrapped is None:
        return None
    try:
        key = await vault.keyring.open_key(wrapped)
        header = b""
        async with vault.stores[thing.region].get(
            object_name(identity), length=HEADER_BYTES
        ) as pieces:
            async for piece in pieces:
                header += piece
        stored = replace(Stored.of(thing), stream_header=header)
        async with open_object(vault, stored, key) as opened:
            async for _ in opened:
                pass
    except (DamagedError, StaleScopeError, ObjectMissingError):
        return None
    return header


async def _note(vault: Vault, region: str, left: list[Damage], before: datetime) -> None:
    """Keep what is left, and of what was seen before a time nothing else."""
    async with transaction(vault.pool) as conn:
        await damage_sql.note(conn, left, vault.clock())
        await damage_sql.forget_before(conn, region, before)


async def _say(access: Access, mends: list[Mend], region: str) -> None:
    """Keep what is left and nothing else, and record each document that was mended."""
    vault = access.vault
    await _note(vault, region, [item.damage for item in mends if not item.mended], vault.clock())
    records = []
    for identity in sorted({mend.damage.id or "" for mend in mends if mend.mended}):
        try:
            document = UUID(identity)
        except ValueError:
            continue
        intent = replace(access.intent, id=vault.new_id(), document=document)
        records += [intent, Access(vault, intent).conclude(reason="mended")]
    if records:
        await vault.recorder.append_many(records)
