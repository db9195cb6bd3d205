"""The keyed index of telephone numbers, and the keys it stands under."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from keys.keyring import WrappedKey
from vault.sql.connection import Connection


@dataclass(frozen=True, slots=True)
class IndexKey:
    """A key of the index; `wrapped` is None when the tree does not have it any more."""

    id: UUID
    created_at: datetime
    retired_at: datetime | None
    wrapped: WrappedKey | None


def _index_key(row: asyncpg.Record) -> IndexKey:
    fields = dict(row)
    fields["wrapped"] = None
    if row["wrap"] is not None:
        fields["wrapped"] = WrappedKey(
            row["id"], row["region"], row["scope"], row["scope_epoch"], row["wrap"]
        )
    return IndexKey(*(fields[name] for name in ("id", "created_at", "retired_at", "wrapped")))


async def index_keys(conn: Connection, region: str) -> list[IndexKey]:
    """Return a region's keys, the present one first."""
    rows = await conn.fetch(
        """
        select n.id, n.region, created_at, retired_at, scope, scope_epoch, wrap
        from number_index_key n left join data_key k on k.id = n.id
        where n.region = $1 order by retired_at desc nulls first
        """,
        region,
    )
    return [_index_key(row) for row in rows]


async def is_present(conn: Connection, key: UUID) -> bool:
    """Whether new rows may stand under the key; it stays so until the transaction ends."""
    found: bool | None = await conn.fetchval(
        "select retired_at is null from number_index_key where id = $1 for share", key
    )
    return bool(found)


async def replace_key(
    conn: Connection, region: str, old: UUID | None, new: UUID, now: datetime
) -> None:
    """Make the new key the present one; a unique violation when another one has become it."""
    await conn.execute(
        "update number_index_key set retired_at = $2 where id = $1 and retired_at is null",
        old,
        now,
    )
    await conn.execute(
        "insert into number_index_key (id, region, created_at) values ($1, $2, $3)",
        new,
        region,
        now,
    )


async def insert(
    conn: Connection, region: str, key: UUID, order: UUID, macs: Sequence[bytes]
) -> None:
    """Index an order."""
    await conn.execute(
        """
        insert into number_index (region, key, mac, "order")
        select $1, $2, mac, $3 from unnest($4::bytea[]) mac
        """,
        region,
        key,
        order,
        list(macs),
    )


async def move(
    conn: Connection, region: str, key: UUID, order: UUID, macs: Sequence[bytes]
) -> None:
    """Have an order stand under this key only, unless meanwhile it stands nowhere any more."""
    await conn.execute(
        """
        with gone as (
            delete from number_index where "order" = $3 and key is distinct from $2
            returning "order")
        insert into number_index (region, key, mac, "order")
        select $1, $2, mac, $3 from unnest($4::bytea[]) mac where exists (select from gone)
        """,
        region,
        key,
        order,
        list(macs),
    )


async def waiting(conn: Connection, region: str, limit: int) -> list[UUID]:
    """Return orders that stand under no key, or under a retired one."""
    rows = await conn.fetch(
        """
        select distinct "order" from (
            select "order" from number_index where region = $1 and (key is null or key in (
                select id from number_index_key where region = $1 and retired_at is not null))
            limit $2) found
        """,
        region,
        limit,
    )
    return [row["order"] for row in rows]


async def orders_of(
    conn: Connection, region: str, keys: Sequence[UUID], macs: Sequence[bytes]
) -> list[UUID]:
    """Return the orders that one of the MACs, each under its key, stands for."""
    rows = await conn.fetch(
        """
        select distinct "order" from number_index
        where region = $1 and (key, mac) in (select * from unnest($2::uuid[], $3::bytea[]))
        """,
        region,
        list(keys),
        list(macs),
    )
    return [row["order"] for row in rows]


async def forget_order(conn: Connection, order: UUID) -> None:
    """Take an order out of the index."""
    await conn.execute('delete from number_index where "order" = $1', order)


async def forget_key(conn: Connection, key: UUID) -> None:
    """Delete a retired key and what still stands under it."""
    await conn.execute("delete from number_index where key = $1", key)
    await conn.execute("delete from number_index_key where id = $1", key)


async def forget_ended(conn: Connection, region: str, before: datetime) -> None:
    """Take out the orders that ended before then and have no document left."""
    await conn.execute(
        """
        delete from number_index n using porting_order o
        where n.region = $1 and o.id = n."order" and o.ended_at < $2 and not exists (
            select from document d
            where d.order_id = o.id and d.custody in ('receiving', 'stored'))
        """,
        region,
        before,
    )
