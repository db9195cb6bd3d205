"""What waits, and which store is a region's own."""

from collections.abc import Mapping
from dataclasses import dataclass

from vault.sql.connection import Connection
from vault.sql.holds import covering_document

# ---- What waits in a table for a step of the worker, or for somebody else: how much, and how
# long.
#
# A queue is a line here. A test walks the worker's steps and the database's tables, so that a new
# one needs a line, or a reason why nothing waits in it.

#: More than this is not counted: a queue of so many is as long as one can be.
COUNT_MAX = 10_000
_HELD = covering_document("d.id", "d.order_id", "d.region", "o.customer")


@dataclass(frozen=True, slots=True)
class Bounds:
    """From which age on a row that is there waits for a step: before that its time has not come."""

    custody_seconds: float
    receiving_seconds: float
    interrupted_seconds: float


@dataclass(frozen=True, slots=True)
class Length:
    """How many rows of a queue wait, `COUNT_MAX` at most, and the oldest of them for how long."""

    count: int
    seconds: float


#: Of each queue, since when each of its rows waits: $1 is the region, the others are `Bounds`.
ROWS: Mapping[str, str] = {
    "log": """
        select at since from log_queue where region = $1 union all
        select coalesce(oldest, at) from log_checkpoint where region = $1
            and size > coalesce((select size from log_published where region = $1), 0)
        """,
    "seal": """
        select since from key_dirty where region = $1 union all
        select greatest(g.named_at, a.active_at) from key_generation g
            left join key_generation a on a.region = $1 and a.state = 'active'
            where g.region = $1 and g.state in ('intended', 'retired')
        """,
    "mirror": "select since from key_changed where region = $1",
    "mark-sealed": """
        select shredded_at since from document where region = $1 and custody = 'shredded' union all
        select ended_at from fax where region = $1 and custody = 'shredded'
        """,
    "purge": f"""
        select d.shredded_at since from document d left join porting_order o on o.id = d.order_id
        where d.region = $1 and d.shredded_at is not null and d.purged_at is null
            and not exists (select from hold_target t where {_HELD})
        """,
    "certify": """
        select greatest(sealed_at, purged_at) since from document d
        where region = $1 and custody = 'sealed' and purged_at is not null
            and not exists (select from certificate c where c.document = d.id)
        """,
    "expire": """
        select due_at since from document
        where region = $1 and custody = 'stored' and due_at <= clock_timestamp()
        """,
    "review": """
        select review_since since from document
        where region = $1 and custody = 'stored' and reviewed = 0
        union all
        select later.since from (
            select version, lead(applied_at) over (order by version) since
            from retention_policy) later
            join document d on d.reviewed = later.version
        where d.region = $1 and d.custody = 'stored' and later.since is not null
        """,
    "order-details": """
        select greatest(look_at, since) since from order_look
        where region = $1 and look_at <= clock_timestamp()
        """,
    "number-index": """
        select coalesce(k.retired_at, p.created_at, clock_timestamp()) since
        from number_index i left join number_index_key k on k.id = i.key
            left join number_index_key p on p.region = $1 and p.retired_at is null
        where i.region = $1 and (i.key is null or k.retired_at is not null)
        """,
    "deliver": """
        select next_at since from signal_delivery
        where region = $1 and state = 'waiting' and next_at <= clock_timestamp()
        """,
    "signals-dead": """
        select next_at since from signal_delivery where region = $1 and state = 'dead'
        """,
    "fax-relay": """
        select next_attempt_at since from fax
        where region = $1 and channel = 'mail' and direction = 'inbound' and custody = 'stored'
            and next_attempt_at <= clock_timestamp()
        """,
    "fax-custody": "select received_at since from fax where region = $1 and custody = 'stored'",
    "fax-expire": """
        select received_at + make_interval(secs => $2) since from fax
        where region = $1 and custody = 'stored'
            and received_at < clock_timestamp() - make_interval(secs => $2)
        """,
    "fax-purge": """
        select ended_at since from fax
        where region = $1 and custody <> 'stored' and purged_at is null
        """,
    "collect": """
        select received_at + make_interval(secs => $3) since from document
        where region = $1 and custody = 'receiving'
            and received_at < clock_timestamp() - make_interval(secs => $3)
        """,
    "interrupted": """
        select at + make_interval(secs => $4) since from log_open
        where region = $1 and at < clock_timestamp() - make_interval(secs => $4)
        """,
}
_LENGTHS = " union all ".join(
    f"select '{name}' queue, count(*), extract(epoch from clock_timestamp() - min(since))::float8 "
    f"seconds from ({rows} order by since limit {COUNT_MAX}) rows_{number}"
    for number, (name, rows) in enumerate(ROWS.items())
)

#: Steps of the worker that empty no queue of their own name, and why.
OTHER_STEPS: Mapping[str, str] = {
    "sequence": "the first half of `log`",
    "publish": "the second half of `log`",
    "trim": "deletes what is old; nobody waits for it",
    "due-soon": "tells beforehand; what it told waits in `deliver`",
    "fax-receipts": "deletes what is old; nobody waits for it",
    "forget": "deletes what is old; nobody waits for it",
    "idempotency": "deletes what is old; nobody waits for it",
    "look": "looks at what lies at rest, again and again; what it finds doctor names",
}
#: Tables in which nothing waits for a step, and why.
NO_QUEUE: Mapping[str, str] = {
    "access_record": "kept; what is not in the log yet stands in log_queue",
    "approval": "waits for people, and runs out by itself",
    "break_glass": "kept for the day it is needed",
    "carrier_order": "whose order a carrier's reference is",
    "damage": "what was found damaged at rest, which doctor names",
    "damage_look": "how far the look at what lies at rest is",
    "data_key": "keys, as long as what they open",
    "expiry": "what went by its time, counted",
    "expiry_clock": "when the worker last looked",
    "hold": "kept until people release it",
    "hold_target": "what a hold keeps",
    "idempotency": "answers that were given",
    "instruction": "customers' wishes, asked at each decision",
    "key_gone": "what left the tree, until the mirror's next base",
    "key_mirror": "how far the mirror is",
    "key_node": "the tree; what changed stands in key_changed",
    "key_scope": "the tree; what is to be sealed stands in key_dirty",
    "key_tree": "the tree's head",
    "log_cosignature": "signatures of checkpoints",
    "log_leaf": "the log",
    "log_minimum": "how much of the log was trimmed",
    "migration": "what was applied",
    "object_store": "which store is whose",
    "order_certificate": "issued with the last certificate of an order's documents",
    "order_event": "what carriers and the desk said",
    "principal_name": "what a principal was called, as long as the log",
    "restriction": "kept until people lift it",
    "retention_policy": "policies that were in force",
    "session": "good until a time, then swept",
    "signal": "what is told; its deliveries wait in signal_delivery",
    "taken_once": "good until a time, then swept",
    "token": "who may come in",
    "usage": "counts of reads",
}


async def lengths(conn: Connection, region: str, bounds: Bounds) -> dict[str, Length]:
    """Return the length of each of a region's queues, by the database's clock."""
    rows = await conn.fetch(
        _LENGTHS,
        region,
        bounds.custody_seconds,
        bounds.receiving_seconds,
        bounds.interrupted_seconds,
    )
    return {row["queue"]: Length(row["count"], max(row["seconds"] or 0.0, 0.0)) for row in rows}


async def last_times(conn: Connection, region: str) -> dict[str, float]:
    """Return how many seconds ago a region's last checkpoint, seal and mirror were written."""
    rows = await conn.fetch(
        """
        select what, extract(epoch from clock_timestamp() - max(at))::float8 seconds from (
            select 'checkpoint' what, c.at from log_checkpoint c join log_published p
                on p.region = c.region and p.size = c.size where c.region = $1 union all
            select 'seal', destroyed_at from key_generation
                where region = $1 and state = 'destroyed' union all
            select 'mirror', written_at from key_mirror where region = $1) done
        where at is not null group by what
        """,
        region,
    )
    return {row["what"]: max(row["seconds"], 0.0) for row in rows}


# ---- The statements of the stores' identities. --------------------------------------------------

#: The space of the advisory locks, by region, under which a store is given its identity.
_IDENTITY = 0x73746F72  # "stor"


async def lock_identity(conn: Connection, region: str) -> None:
    """Let nobody else give the region's store an identity until the transaction ends."""
    await conn.execute("select pg_advisory_xact_lock($1, hashtext($2))", _IDENTITY, region)


async def store_id(conn: Connection, region: str) -> str | None:
    """Return the id of the store that holds the region's objects; None when none is known."""
    found: str | None = await conn.fetchval("select id from object_store where region = $1", region)
    return found


async def store_ids(conn: Connection) -> dict[str, str]:
    """Return the id of each region's store, of the regions where one is known."""
    if not await conn.fetchval("select to_regclass('object_store') is not null"):
        return {}
    rows = await conn.fetch("select region, id from object_store")
    return {row["region"]: row["id"] for row in rows}


async def keep_store_id(conn: Connection, region: str, identity: str) -> None:
    """Keep which store holds the region's objects; durable with the transaction."""
    await conn.execute("insert into object_store (region, id) values ($1, $2)", region, identity)
