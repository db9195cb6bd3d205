"""Looking records up, in the log's own region, newest first."""

from datetime import datetime
from uuid import UUID

from vault.domain.search import Found, Wanted
from vault.sql.connection import Connection
from vault.sql.log import FROM_R, record_of


async def page(
    conn: Connection,
    region: str,
    wanted: Wanted,
    *,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Found]:
    """Return records by time, newest first, that come after the cursor."""
    # Only the conditions that are asked for stand in the statement, so that each finds its index.
    values: list[object] = [region, limit]

    def value(given: object) -> str:
        values.append(given)
        return f"${len(values)}"

    conditions = ["l.region = $1", "l.at is not null"]
    conditions += [
        f'l."{name}" = {value(given)}'
        for name in ("document", "order", "principal", "purpose", "action")
        if (given := getattr(wanted, name)) is not None
    ]
    if wanted.refused:
        conditions.append("l.decision = 'deny'")
    if wanted.transfers:
        conditions.append("l.region_to <> l.region")
    if wanted.since is not None:
        conditions.append(f"l.at >= {value(wanted.since)}")
    if wanted.until is not None:
        conditions.append(f"l.at < {value(wanted.until)}")
    if before is not None:
        at, record = before
        conditions.append(f"(l.at, l.record) < ({value(at)}, {value(record)})")
    rows = await conn.fetch(
        f"""
        select l.index place, {FROM_R} from log_leaf l join access_record r on r.id = l.record
        where {" and ".join(conditions)}
        order by l.at desc, l.record desc limit $2
        """,
        *values,
    )
    return [Found(row["place"], record_of(row)) for row in rows]
