"""Signals and their deliveries."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from vault.domain.signals import Signal
from vault.sql.connection import Connection


@dataclass(frozen=True, slots=True)
class Delivery:
    """A signal on its way to one endpoint."""

    signal: UUID
    endpoint: str
    region: str
    type: str
    at: datetime
    payload: str
    state: str
    attempts: int
    next_at: datetime
    last_failure: str | None
    delivered_at: datetime | None
    #: Its place in the list; None until the worker has given it one.
    number: int | None


_NUMBERS = 0x7369676E  # "sign"

_COLUMNS = """
    s.id signal, d.endpoint, s.region, s.type, s.at, s.payload, d.state, d.attempts, d.next_at,
    d.last_failure, d.delivered_at, d.number
    from signal_delivery d join signal s on s.id = d.signal
"""


async def insert(
    conn: Connection, signals: Sequence[Signal], endpoints: Sequence[tuple[UUID, str]]
) -> None:
    """Keep signals with a delivery for each endpoint; one that was told before is left alone."""
    await conn.execute(
        """
        with made as (
            insert into signal (id, region, type, at, payload)
            select * from unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::text[])
            on conflict do nothing returning id, region, at)
        insert into signal_delivery (signal, endpoint, region, state, next_at)
        select made.id, e.endpoint, made.region, 'waiting', made.at
        from made join unnest($6::uuid[], $7::text[]) e (id, endpoint) on e.id = made.id
        """,
        [signal.id for signal in signals],
        [signal.region for signal in signals],
        [signal.type.value for signal in signals],
        [signal.at for signal in signals],
        [signal.payload for signal in signals],
        [identity for identity, _ in endpoints],
        [endpoint for _, endpoint in endpoints],
    )


async def lock_waiting(conn: Connection, region: str, now: datetime, limit: int) -> list[Delivery]:
    """Return deliveries whose time has come, locked, skipping locked ones."""
    rows = await conn.fetch(
        f"""
        select {_COLUMNS} where d.region = $1 and d.state = 'waiting' and d.next_at <= $2
        order by d.next_at limit $3 for update of d skip locked
        """,
        region,
        now,
        limit,
    )
    return [Delivery(**dict(row)) for row in rows]


async def set_delivered(conn: Connection, delivery: Delivery, now: datetime) -> None:
    """Note that the endpoint has taken it."""
    await conn.execute(
        """
        update signal_delivery set state = 'delivered', attempts = attempts + 1,
            delivered_at = $3, last_failure = null
        where signal = $1 and endpoint = $2
        """,
        delivery.signal,
        delivery.endpoint,
        now,
    )


async def set_failed(
    conn: Connection, delivery: Delivery, failure: str, next_at: datetime | None
) -> None:
    """Note a failure, and when to try again; without that it is dead."""
    await conn.execute(
        """
        update signal_delivery set attempts = attempts + 1, last_failure = $3,
            state = case when $4::timestamptz is null then 'dead' else 'waiting' end,
            next_at = coalesce($4, next_at)
        where signal = $1 and endpoint = $2
        """,
        delivery.signal,
        delivery.endpoint,
        failure,
        next_at,
    )


async def region_of(conn: Connection, signal: UUID) -> str | None:
    """Return where a signal is from."""
    found: str | None = await conn.fetchval("select region from signal where id = $1", signal)
    return found


async def replay(conn: Connection, signal: UUID, now: datetime) -> int:
    """Send a signal again to every endpoint; returns to how many."""
    done = await conn.execute(
        """
        update signal_delivery set state = 'waiting', attempts = 0, next_at = $2
        where signal = $1
        """,
        signal,
        now,
    )
    return int(done.split()[-1])


async def give_numbers(conn: Connection, region: str, limit: int) -> None:
    """
    Give deliveries that are committed their places in the list.

    One at a time, over all regions, until the transaction ends: so whoever sees a number sees all
    that are lower, and nothing comes in below it afterwards.
    """
    await conn.execute("select pg_advisory_xact_lock($1, 0)", _NUMBERS)
    await conn.execute(
        """
        update signal_delivery d set number = nextval('signal_delivery_number_seq')
        from (select signal, endpoint from signal_delivery where region = $1 and number is null
            order by next_at limit $2) waiting
        where d.signal = waiting.signal and d.endpoint = waiting.endpoint
        """,
        region,
        limit,
    )


async def page(
    conn: Connection, regions: Sequence[str], state: str | None, before: int | None, limit: int
) -> list[Delivery]:
    """Return deliveries that have a number, the newest first, that come after the cursor."""
    rows = await conn.fetch(
        f"""
        select {_COLUMNS} where d.number is not null and d.region = any($1)
            and ($2::text is null or d.state = $2) and ($3::bigint is null or d.number < $3)
        order by d.number desc limit $4
        """,
        list(regions),
        state,
        before,
        limit,
    )
    return [Delivery(**dict(row)) for row in rows]
