"""Looking records up, in the log's own region, newest first; those that wait for a place, too."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from vault.domain.access import Action
from vault.domain.records import Found, Record, Wanted
from vault.sql.connection import Connection
from vault.sql.log import FROM_R, Leaf, leaf_of, record_of


async def page(
    conn: Connection,
    region: str,
    wanted: Wanted,
    *,
    before: tuple[datetime, UUID] | None,
    limit: int,
    without: UUID,
) -> list[Found]:
    """
    Return records by time, newest first, that come after the cursor.

    One statement reads the places of the log and the queue before it, so that a record which moves
    from one to the other meanwhile is found once. `without` is the record of this very look.
    """
    text, values = statement(region, wanted, before=before, limit=limit, without=without)
    rows = await conn.fetch(text, *values)
    published: int = (
        await conn.fetchval("select size from log_published where region = $1", region) or 0
    )
    return [
        Found(row["place"], record_of(row), row["place"] is None or row["place"] >= published)
        for row in rows
    ]


def statement(
    region: str,
    wanted: Wanted,
    *,
    before: tuple[datetime, UUID] | None,
    limit: int,
    without: UUID,
) -> tuple[str, list[object]]:
    """Return the statement that answers a question, and its arguments."""
    values: list[object] = [region, limit, without]
    conditions = _conditions(wanted, before, values)
    placed = " and ".join(
        ["l.region = $1", "l.at is not null", "l.record <> $3", *conditions]
    ).format(row="l", record="l.record")
    queued = " and ".join(["q.region = $1", "q.record <> $3", *conditions]).format(
        row="r", record="r.id"
    )
    text = f"""
        (select l.index place, {FROM_R} from log_leaf l join access_record r on r.id = l.record
            where {placed} order by l.at desc, l.record desc limit $2)
        union all
        (select null, {FROM_R} from log_queue q join access_record r on r.id = q.record
            where {queued} order by r.at desc, r.id desc limit $2)
        order by at desc, id desc limit $2
    """
    return text, values


def _conditions(
    wanted: Wanted, before: tuple[datetime, UUID] | None, values: list[object]
) -> list[str]:
    """Return the conditions that are asked for, and no other, so that each finds its index."""

    def value(given: object) -> str:
        values.append(given)
        return f"${len(values)}"

    conditions = [
        f'{{row}}."{name}" = {value(given)}'
        for name in ("document", "order", "principal", "purpose", "action")
        if (given := getattr(wanted, name)) is not None
    ]
    if wanted.refused:
        conditions.append("{row}.decision = 'deny'")
    if wanted.transfers:
        conditions.append("{row}.region_to <> {row}.region")
    if wanted.since is not None:
        conditions.append(f"{{row}}.at >= {value(wanted.since)}")
    if wanted.until is not None:
        conditions.append(f"{{row}}.at < {value(wanted.until)}")
    if before is not None:
        at, record = before
        conditions.append(f"({{row}}.at, {{record}}) < ({value(at)}, {value(record)})")
    return conditions


async def followers(
    conn: Connection, region: str, intents: Sequence[Record]
) -> dict[UUID, list[Record]]:
    """Return what follows each intent about a document or an order: they are found by those."""
    asked = [record for record in intents if record.document or record.order]
    if not asked:
        return {}
    rows = await conn.fetch(
        f"""
        select {FROM_R} from log_leaf l join access_record r on r.id = l.record
        where l.document = any($2) and l.at >= $4 and r.intent = any($5)
        union
        select {FROM_R} from log_leaf l join access_record r on r.id = l.record
        where l."order" = any($3) and l.document is null and l.at >= $4 and r.intent = any($5)
        union
        select {FROM_R} from log_queue q join access_record r on r.id = q.record
        where q.region = $1 and r.intent = any($5)
        """,
        region,
        [record.document for record in asked if record.document],
        [record.order for record in asked if record.order and not record.document],
        min(record.at for record in asked),
        [record.id for record in asked],
    )
    found: dict[UUID, list[Record]] = {}
    for record in map(record_of, rows):
        if record.intent is not None:
            found.setdefault(record.intent, []).append(record)
    return found


async def is_recorded(conn: Connection, region: str, what: str, identity: UUID) -> bool:
    """Whether anything but a look into the log names a document or an order."""
    found: bool = await conn.fetchval(
        f"""
        select exists (select from log_leaf
                where region = $1 and "{what}" = $2 and action <> '{Action.LOG_READ}')
            or exists (select from log_queue q join access_record r on r.id = q.record
                where q.region = $1 and r."{what}" = $2 and r.action <> '{Action.LOG_READ}')
        """,
        region,
        identity,
    )
    return found


async def place_of(conn: Connection, what: str, identity: UUID) -> str | None:
    """Return the region in which a document, a fax or an order lies or lay."""
    statement = "select region from porting_order where id = $1"
    if what == "document":
        statement = (
            "select region from document where id = $1"
            " union all select region from fax where id = $1"
        )
    place: str | None = await conn.fetchval(statement, identity)
    return place


async def was_ever(conn: Connection, principal: str) -> bool:
    """Whether there ever was such a principal: one with a name, or one that did anything."""
    found: bool = await conn.fetchval(
        """
        select exists (select from principal_name where principal = $1)
            or exists (select from log_leaf l join (select distinct region from log_checkpoint) c
                using (region) where l.principal = $1)
            or exists (select from log_queue q join access_record r on r.id = q.record
                where r.principal = $1)
        """,
        principal,
    )
    return found


async def ever_stored(conn: Connection, region: str) -> bool:
    """Whether an order, a document or a fax was ever in a region."""
    found: bool = await conn.fetchval(
        """
        select exists (select from porting_order where region = $1)
            or exists (select from fax where region = $1)
        """,
        region,
    )
    return found


# ---- The statements of an export: which places a time covers, and what stands in them. ----------


async def stretch_of(
    conn: Connection,
    region: str,
    size: int,
    *,
    since: datetime | None,
    until: datetime | None,
) -> tuple[int, int]:
    """Return from which place to which, exclusive, the records of a time stand; all by default."""
    if since is None and until is None:
        return 0, size
    row = await conn.fetchrow(
        """
        select min(index) first, max(index) + 1 last from log_leaf
        where region = $1 and index < $2 and at is not null
            and ($3::timestamptz is null or at >= $3) and ($4::timestamptz is null or at < $4)
        """,
        region,
        size,
        since,
        until,
    )
    if row is None or row["first"] is None:
        return size, size
    return row["first"], row["last"]


async def leaves_of(conn: Connection, region: str, first: int, last: int) -> list[Leaf]:
    """Return what stands in the places from `first` up to `last`, exclusive."""
    rows = await conn.fetch(
        f"""
        select l.index, l.leaf_hash, {FROM_R}
        from log_leaf l left join access_record r on r.id = l.record
        where l.region = $1 and l.index >= $2 and l.index < $3 order by l.index
        """,
        region,
        first,
        last,
    )
    return [leaf_of(row) for row in rows]
