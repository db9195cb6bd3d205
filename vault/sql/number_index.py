"""The keyed index of telephone numbers and references, and the keys it stands under."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from keys.keyring import WrappedKey
from vault.domain.orders import Mark
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
    conn: Connection, region: str, key: UUID, order: UUID, marks: Sequence[Mark]
) -> bool:
    """Index an order; False when the key is not the present one any more, and nothing was done."""
    done = await conn.execute(
        """
        with present as (
            select from number_index_key where id = $2 and retired_at is null for share)
        insert into number_index (region, key, mac, "order", reference)
        select $1, $2, mac, $3, reference
        from present, unnest($4::bytea[], $5::boolean[]) mark (mac, reference)
        """,
        region,
        key,
        order,
        [mark.mac for mark in marks],
        [mark.reference for mark in marks],
    )
    return done != "INSERT 0 0"


async def move(
    conn: Connection, region: str, key: UUID, order: UUID, marks: Sequence[Mark]
) -> None:
    """Have an order that waits stand under this key only, if the key is present."""
    await conn.execute(
        """
        with present as (
            select from number_index_key where id = $2 and retired_at is null for share),
        gone as (
            delete from number_index where "order" = $3 and exists (select from present)
                and exists (
                    select from number_index where "order" = $3 and key is distinct from $2)
            returning "order")
        insert into number_index (region, key, mac, "order", reference)
        select $1, $2, mac, $3, reference
        from unnest($4::bytea[], $5::boolean[]) mark (mac, reference)
        where exists (select from gone)
        """,
        region,
        key,
        order,
        [mark.mac for mark in marks],
        [mark.reference for mark in marks],
    )


async def waiting(conn: Connection, region: str, retired: Sequence[UUID], limit: int) -> list[UUID]:
    """Return orders that stand under no key, or under a retired one."""
    rows = await conn.fetch(
        """
        select distinct "order" from (
            (select "order" from number_index where region = $1 and key is null limit $3)
            union all
            (select "order" from number_index where region = $1 and key = any($2) limit $3)) found
        """,
        region,
        list(retired),
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


async def count_numbers(conn: Connection, order: UUID) -> int:
    """Return how many numbers an order moves, as long as it is in the index."""
    count: int = await conn.fetchval(
        'select count(*) from number_index where "order" = $1 and not reference', order
    )
    return count


async def forget_orders(conn: Connection, orders: Sequence[UUID]) -> None:
    """Take orders out of the index."""
    await conn.execute('delete from number_index where "order" = any($1)', list(orders))


async def forget_key(conn: Connection, key: UUID) -> None:
    """Delete a retired key and what still stands under it."""
    await conn.execute("delete from number_index where key = $1", key)
    await conn.execute("delete from number_index_key where id = $1", key)
