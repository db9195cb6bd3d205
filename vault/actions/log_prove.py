"""
Prove: what lets somebody else check the log without trusting us.

Checkpoints, tiles and proofs of the log as it is published in the region's bucket. None of it says
what a record holds, except the bundles of entries, which are for who may read the log.
"""

import base64
import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from keys.errors import IntegrityError
from keys.notes.note import CosignatureVerifier
from vault.actions.access import recorded, served
from vault.actions.log_publish import trimmed_size
from vault.actions.log_tiles import MissingTileError, Tiles
from vault.actions.read import Outgoing
from vault.context import Vault
from vault.domain.access import Action, Principal, Role
from vault.domain.checkpoint import origin
from vault.domain.people import Names
from vault.domain.records import Record, canonical_bytes
from vault.domain.tiles import (
    BUNDLES,
    WIDTH,
    Tile,
    consistency_runs,
    covering,
    encode_entries,
    encode_hashes,
    encode_proof,
    inclusion_runs,
)
from vault.errors import ForbiddenError, InvalidRequestError, NotFoundError, UnavailableError
from vault.sql import access as access_sql
from vault.sql import log as log_sql
from vault.sql import log_published as published_sql
from vault.sql import log_search as search_sql
from vault.sql.connection import Connection, connection, transaction
from vault.sql.log import Leaf

#: How far a witness's clock may be ahead.
CLOCK_SECONDS_MAX = 300.0
#: How often a tile is looked for while the log grows.
ATTEMPTS = 5


async def checkpoint(
    vault: Vault, principal: Principal, region: str, *, witnessed: bool = False
) -> str:
    """Return the checkpoint that is published, or the newest one that a witness has cosigned."""
    async with recorded(vault, principal, Action.LOG_PROVE, region=served(vault, region)):
        return (await published(vault, region, witnessed=witnessed))[1]


async def published(vault: Vault, region: str, *, witnessed: bool = False) -> tuple[int, str]:
    """Return size and note of what is published; raises `NotFoundError` when nothing is."""
    async with connection(vault.pool) as conn:
        if witnessed:
            found = await published_sql.witnessed_note(conn, region)
            missing = "no witness has cosigned this log yet"
        else:
            found = await published_sql.published_note(conn, region)
            missing = "the log has no published checkpoint yet; try again in a second"
    if found is None:
        raise NotFoundError(missing)
    return found


async def signing_keys(
    vault: Vault, principal: Principal, region: str
) -> Mapping[str, str | list[str]]:
    """Return the public key that signs now, and the notes by which earlier keys named it."""
    async with recorded(vault, principal, Action.LOG_PROVE, region=served(vault, region)):
        return {"key": vault.signer.vkey, "handovers": list(vault.signer.handovers)}


async def tile(vault: Vault, principal: Principal, region: str, wanted: Tile) -> bytes:
    """Return a tile of the published log; bundles of entries only to who may read the log."""
    action = Action.LOG_READ if wanted.level == BUNDLES else Action.LOG_PROVE
    async with recorded(vault, principal, action, region=served(vault, region)):
        for _ in range(ATTEMPTS):
            size, note = await published(vault, region)
            try:
                return await _tile(Tiles(vault, region, size, note), wanted)
            except MissingTileError:
                # As it should be, where the log has grown since, or its records were trimmed.
                if (await published(vault, region))[0] != size:
                    continue
                if wanted.level == BUNDLES and await _is_trimmed(vault, region, wanted):
                    raise NotFoundError("the published log has no such tile any more") from None
                raise
        raise UnavailableError("the log grows as fast as its tiles are read; try again")


async def _tile(tiles: Tiles, wanted: Tile) -> bytes:
    """Return a tile as the log of now has it, cut to what was asked for."""
    now = next(covering(tiles.size, wanted.level, wanted.index * WIDTH), None)
    if now is None or wanted.width > now.width:
        raise NotFoundError("the published log has no such tile")
    if wanted.level == BUNDLES:
        return encode_entries((await tiles.entries(now))[: wanted.width])
    return encode_hashes((await tiles.hashes(now))[: wanted.width])


async def _is_trimmed(vault: Vault, region: str, bundle: Tile) -> bool:
    async with connection(vault.pool) as conn:
        return bundle.index * WIDTH < await trimmed_size(vault, conn, region)


async def inclusion(
    vault: Vault,
    principal: Principal,
    region: str,
    *,
    record: UUID | None = None,
    index: int | None = None,
    witnessed: bool = False,
) -> str:
    """Return the proof that a record, by its id or its place, is in the log (C2SP tlog-proof)."""
    async with recorded(vault, principal, Action.LOG_PROVE, region=served(vault, region)):
        if (record is None) == (index is None):
            raise InvalidRequestError("say which record: by its id, or by its index")
        size, note = await published(vault, region, witnessed=witnessed)
        if record is not None:
            index = await _place(vault, region, record)
        if index is None or index >= size:
            raise UnavailableError("the record is under no such checkpoint yet; try again")
        return await proof_under(vault, region, index, size, note)


async def proof_under(vault: Vault, region: str, index: int, size: int, note: str) -> str:
    """Return the proof that the record at an index is under a published checkpoint."""
    tiles = Tiles(vault, region, size, note)
    proof = [await tiles.hash_of(run) for run in inclusion_runs(index, size)]
    return encode_proof(index, proof, note)


async def _place(vault: Vault, region: str, record: UUID) -> int | None:
    async with connection(vault.pool) as conn:
        index = await published_sql.place_of_record(conn, region, record)
        if index is None and not await published_sql.is_waiting(conn, region, record):
            raise NotFoundError("there is no such record in this log")
    return index


async def consistency(
    vault: Vault, principal: Principal, region: str, old: int, new: int | None
) -> tuple[int, list[bytes]]:
    """Return up to which size, and the proof that the log of size `old` is a prefix of that one."""
    async with recorded(vault, principal, Action.LOG_PROVE, region=served(vault, region)):
        size, note = await published(vault, region)
        new = size if new is None else new
        if not 0 < old <= new <= size:
            raise InvalidRequestError(
                f"sizes must be from 1 to {size}, the size that is published, and ascending"
            )
        tiles = Tiles(vault, region, size, note)
        return new, [await tiles.hash_of(run) for run in consistency_runs(old, new)]


async def cosign(vault: Vault, principal: Principal, region: str, size: int, line: str) -> str:
    """Keep what a witness of the configuration says of a checkpoint; returns the witness's name."""
    async with recorded(vault, principal, Action.LOG_COSIGN, region=served(vault, region)):
        async with connection(vault.pool) as conn:
            note = await published_sql.checkpoint_of_size(conn, region, size)
        if note is None:
            raise NotFoundError("the log has no checkpoint of this size")
        vkey, time = _cosigned_by(vault, note + line)
        if time > vault.clock().timestamp() + CLOCK_SECONDS_MAX:
            raise InvalidRequestError("the cosignature is of a later time than it is here")
        async with transaction(vault.pool) as conn:
            await published_sql.insert_cosignature(conn, region, size, vkey, line, vault.clock())
    return vkey.partition("+")[0]


def _cosigned_by(vault: Vault, note: str) -> tuple[str, int]:
    for vkey in vault.config.witnesses:
        try:
            return vkey, CosignatureVerifier(vkey).verify(note)[1]
        except IntegrityError:
            continue
    raise ForbiddenError("this is no cosignature of a witness that the vault was told of")


# ---- Export: a stretch of the log as a file that proves itself, or as a table for people. -------
#
# A line of JSON each: first what the log is and what is needed to hash the stretch into its
# published checkpoint, then the records with their leaf hashes, and among them the checkpoints
# that hold there. It is read from the database page by page, in constant memory, and goes out as a
# watched stream.

PAGE = 1000
#: What a page of records takes of memory, as rows and as lines.
PAGE_BYTES = 4 * 1024 * 1024
FORMAT = 2
#: So many waiting records stand in an export at most, the oldest; it says how many there are.
WAITING_MAX = 100_000
_COLUMNS = ("index", *Record.__dataclass_fields__, "waiting", "principal_name")
#: Who is shown what principals were called: their own house, and no party outside.
_NAMES_FOR = frozenset({Role.COMPLIANCE})


@dataclass(frozen=True, slots=True)
class Stretch:
    """What is exported: places from `first` up to, and without, `last` of a log of `size`."""

    region: str
    first: int
    last: int
    size: int
    note: str
    #: When the export was begun, how many records of its time wait to be published then, and the
    #: ids of those that are shown.
    made_at: datetime
    waiting: int
    waiting_ids: Sequence[UUID]
    #: Whether what principals were called stands beside the records.
    named: bool


@asynccontextmanager
async def export_log(
    vault: Vault,
    principal: Principal,
    region: str,
    *,
    since: datetime | None,
    until: datetime | None,
    as_csv: bool,
) -> AsyncIterator[Outgoing]:
    """
    Open an export of what is published, from the first record of the time up to the last.

    Records stand in the order in which they got their places, so that a few beside the time may be
    among them: a proof has no holes. Behind them stand those that wait to be published.
    """
    async with recorded(
        vault, principal, Action.LOG_EXPORT, region=served(vault, region)
    ) as access:
        with vault.memory.share(PAGE_BYTES):
            size, note = await published(vault, region)
            now = vault.clock()
            async with connection(vault.pool) as conn:
                first, last = await search_sql.stretch_of(
                    conn, region, size, since=since, until=until
                )
                number, waiting = await log_sql.waiting_records(
                    conn,
                    region,
                    size,
                    since=since,
                    until=now if until is None else min(until, now),
                    limit=WAITING_MAX,
                )
            named = principal.role in _NAMES_FOR
            stretch = Stretch(region, first, last, size, note, now, number, waiting, named)
            lines = (_table if as_csv else _lines)(vault, stretch)
            pieces = Outgoing(access, lines)
            try:
                yield pieces
            finally:
                await pieces.aclose()


async def _lines(vault: Vault, stretch: Stretch) -> AsyncIterator[bytes]:
    tiles = Tiles(vault, stretch.region, stretch.size, stretch.note)
    async with connection(vault.pool) as conn:
        minimum = await published_sql.minimum_note(conn, stretch.region)
    head = {
        "v": FORMAT,
        "export": origin(stretch.region),
        "first": stretch.first,
        "last": stretch.last,
        "size": stretch.size,
        "left": _texts(await tiles.compact(0, stretch.first)),
        "right": _texts(await tiles.compact(stretch.last, stretch.size)),
        "key": vault.signer.vkey,
        "handovers": list(vault.signer.handovers),
        "minimum": minimum,
        "checkpoint": stretch.note,
        "made_at": stretch.made_at.isoformat(),
        "waiting": stretch.waiting,
    }
    yield json.dumps(head).encode() + b"\n"
    async for page, notes, names in _pages(vault, stretch):
        waiting = dict(notes)
        made = []
        for leaf in page:
            made.append(_line(leaf, names))
            if note := waiting.pop(leaf.index + 1, None):
                made.append(json.dumps({"checkpoint": note}).encode() + b"\n")
        yield b"".join(made)
    async for records, names in _waiting(vault, stretch):
        yield b"".join(
            b'{"waiting":true%b,"record":%b}\n' % (_named(r, names), canonical_bytes(r))
            for r in records
        )


def _line(leaf: Leaf, names: Names) -> bytes:
    """Return a record's line; its bytes stand in it exactly as they were hashed."""
    head = f'{{"index":{leaf.index},"leaf":"{_text(leaf.hash)}"'.encode()
    if leaf.record is None:
        return head + b"}\n"
    return b'%b%b,"record":%b}\n' % (head, _named(leaf.record, names), canonical_bytes(leaf.record))


def _named(record: Record, names: Names) -> bytes:
    """Return the member that says what a record's principal was called: no part of the record."""
    name = _name(record, names)
    return b"" if name is None else b',"principal_name":' + json.dumps(name).encode()


async def _table(vault: Vault, stretch: Stretch) -> AsyncIterator[bytes]:
    write, take = _csv_writer()
    write(_COLUMNS)
    yield take()
    async for page, _, names in _pages(vault, stretch):
        for leaf in page:
            if leaf.record is not None:
                write([str(leaf.index), *_cells(leaf.record), "", _cell(_name(leaf.record, names))])
        yield take()
    async for records, names in _waiting(vault, stretch):
        for record in records:
            write(["", *_cells(record), "true", _cell(_name(record, names))])
        yield take()


def _name(record: Record, names: Names) -> str | None:
    return names.at(record.principal, record.at)


def _cells(record: Record) -> list[str]:
    return [_cell(getattr(record, name)) for name in Record.__dataclass_fields__]


def _csv_writer() -> tuple[Callable[[Sequence[str]], object], Callable[[], bytes]]:
    """Return how a row is written, and how what was written since is taken."""
    file = io.StringIO()
    writer = csv.writer(file)

    def take() -> bytes:
        written = file.getvalue().encode()
        file.seek(0)
        file.truncate()
        return written

    return writer.writerow, take


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    # A spreadsheet must not take a cell for a formula.
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


async def _pages(
    vault: Vault, stretch: Stretch
) -> AsyncIterator[tuple[list[Leaf], list[tuple[int, str]], Names]]:
    """Yield the stretch page by page, with the checkpoints that hold within each, and names."""
    for first in range(stretch.first, stretch.last, PAGE):
        last = min(first + PAGE, stretch.last)
        async with connection(vault.pool) as conn:
            page = await search_sql.leaves_of(conn, stretch.region, first, last)
            notes = await published_sql.checkpoints_between(conn, stretch.region, first, last)
            names = await _names(conn, stretch, [leaf.record for leaf in page if leaf.record])
        yield page, notes, names


async def _names(conn: Connection, stretch: Stretch, records: Sequence[Record]) -> Names:
    """Return what the principals of some records were called, where that is to be shown."""
    if not stretch.named:
        return Names(())
    return await access_sql.names_of(conn, {record.principal for record in records})


async def _waiting(vault: Vault, stretch: Stretch) -> AsyncIterator[tuple[list[Record], Names]]:
    """Yield what waited when the export began, page by page."""
    for first in range(0, len(stretch.waiting_ids), PAGE):
        async with connection(vault.pool) as conn:
            records = await log_sql.records_of(conn, stretch.waiting_ids[first : first + PAGE])
            names = await _names(conn, stretch, records)
        yield records, names


def _texts(hashes: Sequence[bytes]) -> list[str]:
    return [_text(item) for item in hashes]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
