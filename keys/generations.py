"""The generations of root keys, and the lock of who seals, in PostgreSQL."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from keys.ground.postgres import AWAY, Connection
from keys.nodes import Tree

#: Who keeps unwrapped keys listens here and drops them; the payload is the region.
CHANNEL = "portvault_seal"
_LOCK_SPACE = 0x6B657973  # "keys"


@dataclass(frozen=True, slots=True)
class Outlook:
    """
    What a seal has before it: the tree's head, and what is dirty.

    `clear` unless a seal was left half done, or the custodian holds what is not known here.
    """

    head: Tree
    clear: bool
    dirty_scopes: int
    dirty_nodes: bool


async def try_lock(conn: Connection, region: str) -> bool:
    """Become the only one who seals this region; the session keeps the lock."""
    locked: bool = await conn.fetchval(
        "select pg_try_advisory_lock($1, hashtext($2))", _LOCK_SPACE, region
    )
    return locked


async def unlock(conn: Connection, region: str) -> None:
    """Let the next one seal."""
    if not conn.is_closed():
        await conn.fetchval("select pg_advisory_unlock($1, hashtext($2))", _LOCK_SPACE, region)


async def name_generation(conn: Connection, region: str, above: int) -> int:
    """Name the next generation, above every number that was ever named here or is `above`."""
    generation: int = await conn.fetchval(
        """
        insert into key_generation (region, generation, state)
        select $1, greatest($2, coalesce(max(generation), 0)) + 1, 'intended'
        from key_generation where region = $1 returning generation
        """,
        region,
        above,
    )
    return generation


async def activate(conn: Connection, region: str, generation: int, canary: bytes) -> None:
    """Make an intended generation the first one in use; `canary` is random, wrapped under it."""
    await conn.execute(
        """
        update key_generation set state = 'active', active_at = now(), canary = $3,
            changed = default
        where region = $1 and generation = $2 and state = 'intended'
        """,
        region,
        generation,
        canary,
    )


async def switch(
    conn: Connection, region: str, generation: int, canary: bytes, root_wrap: bytes
) -> bool:
    """
    Put the tree's root under an intended generation, retire the one before, and announce it.

    False when it is not intended any more.
    """
    # The old one is retired first, since only one may be active: `used` needs all of `retired`.
    switched = await conn.fetchrow(
        """
        with retired as (
            update key_generation set state = 'retired', changed = default
            where region = $1 and state = 'active' returning 1),
        used as (
            update key_generation set state = 'active', active_at = now(), canary = $3,
                changed = default
            from (select count(*) from retired) counted
            where region = $1 and generation = $2 and state = 'intended' returning region),
        tree as (
            update key_tree t set generation = $2, root_wrap = $4
            from used where t.region = used.region returning t.region)
        select pg_notify($5, region) from tree
        """,
        region,
        generation,
        canary,
        root_wrap,
        CHANNEL,
    )
    return switched is not None


async def retire_intended(conn: Connection, region: str) -> None:
    """Give up generations that were named and never used; only the holder of the lock may."""
    await conn.execute(
        """
        update key_generation set state = 'retired', changed = default
        where region = $1 and state = 'intended'
        """,
        region,
    )


async def adopt(conn: Connection, region: str, living: Sequence[int]) -> None:
    """Retire generations that only the custodian knows: a lost timeline named them."""
    await conn.execute(
        """
        insert into key_generation (region, generation, state)
        select $1, unnest($2::bigint[]), 'retired' on conflict do nothing
        """,
        region,
        living,
    )


async def retired(conn: Connection, region: str) -> list[tuple[int, bytes | None]]:
    """
    Return generations before the tree's that are to be destroyed, highest first, with canaries.

    Until the highest is gone, nothing before it counts as destroyed. Those after the tree's, which
    a failed seal or a lost timeline named, wait for the next switch: until the mirror holds a tree
    of a later generation, theirs may be the newest.
    """
    rows = await conn.fetch(
        """
        select generation, canary from key_generation
        where region = $1 and state = 'retired'
            and generation < (select generation from key_tree where region = $1)
        order by generation desc
        """,
        region,
    )
    return [(row["generation"], row["canary"]) for row in rows]


async def set_destroyed(conn: Connection, region: str, destroyed: Sequence[int]) -> None:
    """
    Note that the custodian destroyed these, which are all before the tree's.

    What left the tree under them can come back from nowhere any more, and is forgotten.
    """
    await conn.execute(
        """
        with forgotten as (
            delete from key_gone g using key_tree t
            where g.region = $1 and t.region = $1 and g.generation < t.generation)
        update key_generation set state = 'destroyed', destroyed_at = clock_timestamp(),
            canary = null, changed = default
        where region = $1 and generation = any($2) and state = 'retired'
        """,
        region,
        destroyed,
    )


async def canaries(conn: Connection, region: str) -> list[tuple[int, bytes]]:
    """Return the canaries of the generations that live."""
    rows = await conn.fetch(
        """
        select generation, canary from key_generation
        where region = $1 and state <> 'destroyed' and canary is not null order by generation
        """,
        region,
    )
    return [(row["generation"], row["canary"]) for row in rows]


async def set_canary(conn: Connection, region: str, generation: int, canary: bytes) -> None:
    """Give a generation another canary."""
    await conn.execute(
        """
        update key_generation set canary = $3, changed = default
        where region = $1 and generation = $2
        """,
        region,
        generation,
        canary,
    )


async def destroyed_generation(conn: Connection, region: str) -> tuple[int, datetime] | None:
    """
    Return the generation up to which nobody can know a key any more, and since when.

    A key that was shredded under a generation may be known to all that were named before the next
    one was in use, also to one that a failed seal or a lost timeline made and nobody used.
    """
    row = await conn.fetchrow(
        """
        select generation, destroyed_at from key_generation
        where region = $1 and generation < (
            select max(generation) from key_generation
            where region = $1 and active_at is not null and generation <= (
                select min(generation) from key_generation
                where region = $1 and state <> 'destroyed'))
        order by generation desc limit 1
        """,
        region,
    )
    return (row["generation"], row["destroyed_at"]) if row else None


async def destroyed_among(conn: Connection, region: str, living: Sequence[int]) -> list[int]:
    """Return which of the generations that the custodian holds were destroyed before the tree's."""
    rows = await conn.fetch(
        """
        select generation from key_generation
        where region = $1 and state = 'destroyed' and generation = any($2)
            and generation < (select generation from key_tree where region = $1)
        """,
        region,
        living,
    )
    return [row["generation"] for row in rows]


async def unknown_among(conn: Connection, region: str, living: Sequence[int]) -> list[int]:
    """Return which of the generations that the custodian holds were never named here."""
    rows = await conn.fetch(
        """
        select living.generation from unnest($2::bigint[]) living (generation)
        where not exists (select from key_generation g
                          where g.region = $1 and g.generation = living.generation)
        order by 1
        """,
        region,
        living,
    )
    return [row["generation"] for row in rows]


async def outlook(conn: Connection, region: str, living: Sequence[int]) -> Outlook | None:
    """Return what a seal has before it; `living` is what the custodian holds."""
    row = await conn.fetchrow(
        """
        select not exists (select from key_generation
                           where region = $1 and state in ('intended', 'retired'))
            and not exists (select from unnest($2::bigint[]) living (generation)
                            where not exists (select from key_generation g where g.region = $1
                                              and g.generation = living.generation)) clear,
            (select count(*) from key_dirty where region = $1) dirty_scopes,
            exists (select from key_node where region = $1 and dirty) dirty_nodes,
            t.generation, t.root, t.root_wrap, t.revision
        from key_tree t where region = $1
        """,
        region,
        living,
    )
    if row is None:
        return None
    head = Tree(row["generation"], row["root"], row["root_wrap"], row["revision"])
    return Outlook(head, row["clear"], row["dirty_scopes"], row["dirty_nodes"])


async def waits_for_seal(conn: Connection, region: str) -> bool:
    """Whether something is dirty or a seal was left half done."""
    waits: bool = await conn.fetchval(
        """
        select exists (select from key_dirty where region = $1)
            or exists (select from key_node where region = $1 and dirty)
            or exists (select from key_generation
                       where region = $1 and state in ('intended', 'retired'))
        """,
        region,
    )
    return waits


async def waiting_seconds(conn: Connection, region: str) -> float:
    """Return for how long something has been waiting for a seal, or for its end; 0: nothing."""
    seconds: float = await conn.fetchval(
        """
        with waiting (since) as (
            select min(since) from key_dirty where region = $1
            union all
            select min(greatest(g.named_at, a.active_at)) from key_generation g
                left join key_generation a on a.region = $1 and a.state = 'active'
            where g.region = $1 and g.state in ('intended', 'retired'))
        select coalesce(extract(epoch from clock_timestamp() - min(since)), 0)::float8 from waiting
        """,
        region,
    )
    return max(seconds, 0.0)


# ---- Listens for seals: whoever keeps unwrapped keys drops them when one is announced. ----------

RECONNECT_SECONDS = 1.0
CONNECT_SECONDS = 5.0
#: An advisory lock that every listener shares, so that a restore can make sure that it is alone.
SERVING = 0x73657276  # "serv"

log = logging.getLogger(__name__)


async def listen_for_seals(dsn: str, forget: Callable[[], None]) -> None:
    """
    Call `forget` at every seal, on a connection of its own, until cancelled.

    It is called as well when the connection was lost, since a seal may have been missed then.
    """
    while True:
        try:
            await _listen_once(dsn, forget)
        except AWAY:
            log.debug("not listening for seals; trying again")
        forget()
        await asyncio.sleep(RECONNECT_SECONDS)


async def _listen_once(dsn: str, forget: Callable[[], None]) -> None:
    lost = asyncio.Event()
    conn = await asyncpg.connect(dsn, timeout=CONNECT_SECONDS)
    try:
        conn.add_termination_listener(lambda _: lost.set())
        await conn.add_listener(CHANNEL, lambda *_: forget())
        forget()
        await conn.execute("select pg_advisory_lock_shared($1)", SERVING)
        await lost.wait()
    finally:
        conn.terminate()
