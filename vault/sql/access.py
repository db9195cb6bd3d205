"""Who comes in: tokens, sessions and sealed credentials, their names, makers and use."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from vault.domain.access import Principal
from vault.domain.credentials import Envelope, Grant, Known, Lineage, Link
from vault.domain.limits import Usage
from vault.domain.people import Name, Names, Person
from vault.sql.connection import Connection

# ---- Bearer tokens: only the hash of each secret is kept. ---------------------------------------


async def insert_token(
    conn: Connection,
    token: UUID,
    secret_hash: bytes,
    *,
    label: str,
    grant: Grant,
    created_by: str,
    created_at: datetime,
    expires_at: datetime | None,
) -> None:
    """Add a token."""
    await conn.execute(
        """
        insert into token (id, secret_hash, label, role, regions, customers, kinds, located,
            certificate, person, created_by, created_at, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
        """,
        token,
        secret_hash,
        label,
        grant.role,
        sorted(grant.regions),
        _sorted(grant.customers),
        _sorted(grant.kinds),
        grant.located,
        grant.certificate,
        grant.person,
        created_by,
        created_at,
        expires_at,
    )


def _sorted(words: frozenset[str] | None) -> list[str] | None:
    return None if words is None else sorted(words)


async def regions_of_token(conn: Connection, token: UUID) -> frozenset[str]:
    """Return the regions that a token reaches; none where there is no such token."""
    regions: list[str] | None = await conn.fetchval(
        "select regions from token where id = $1", token
    )
    return frozenset(regions or ())


async def find_token(conn: Connection, secret_hash: bytes, now: datetime) -> Known | None:
    """
    Return whom a living token with this hash stands for, and note that it is used.

    The time of use is written once a minute at most, so that a busy token costs no commits.
    """
    row = await conn.fetchrow(
        """
        with found as (
            select id, role, regions, customers, kinds, located, certificate from token
            where secret_hash = $1 and revoked_at is null
                and (expires_at is null or expires_at > $2)
        ), used as (
            update token t set last_used_at = $2 from found f
            where t.id = f.id
                and (t.last_used_at is null or t.last_used_at < $2 - interval '1 minute')
        )
        select * from found
        """,
        secret_hash,
        now,
    )
    if row is None:
        return None
    principal = Principal(
        f"token:{row['id']}",
        row["role"],
        frozenset(row["regions"]),
        customers=None if row["customers"] is None else frozenset(row["customers"]),
        kinds=None if row["kinds"] is None else frozenset(row["kinds"]),
        located=row["located"],
    )
    return Known(principal, row["certificate"])


async def every_token(conn: Connection) -> list[asyncpg.Record]:
    """Return all tokens without their hashes, oldest first."""
    return await conn.fetch(
        """
        select id, label, role, regions, customers, kinds, located,
            encode(certificate, 'hex') certificate, person, created_by, created_at, expires_at,
            revoked_at, last_used_at
        from token order by created_at, id
        """
    )


async def rename(conn: Connection, token: UUID, label: str) -> bool:
    """Say what a token is called; False when there is no such token."""
    done = await conn.execute("update token set label = $2 where id = $1", token, label)
    return done == "UPDATE 1"


async def revoke_token(conn: Connection, token: UUID, now: datetime) -> bool:
    """Revoke for ever; False when there is no such token. Safe to repeat."""
    row = await conn.fetchrow(
        "update token set revoked_at = coalesce(revoked_at, $2) where id = $1 returning id",
        token,
        now,
    )
    return row is not None


# ---- People signing in and signed in: only hashes of what their browsers hold are kept. ---------


@dataclass(frozen=True, slots=True)
class Session:
    """A person who is signed in, and what a form of theirs has to carry."""

    person: Person
    csrf: str
    expires_at: datetime


async def take_session(conn: Connection, hashed: bytes, expires_at: datetime) -> bool:
    """Take what is good once, with the transaction that uses it; False when it was taken before."""
    done = await conn.execute(
        "insert into taken_once (hash, expires_at) values ($1, $2) on conflict do nothing",
        hashed,
        expires_at,
    )
    return done == "INSERT 0 1"


async def insert_session(
    conn: Connection,
    secret_hash: bytes,
    session: Session,
    *,
    subject: str,
    provider_session: str | None,
    now: datetime,
) -> None:
    """Sign a person in."""
    principal = session.person.principal
    await conn.execute(
        """
        insert into session (secret_hash, principal, role, regions, located, shown_as, csrf,
            subject, provider_session, created_at, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        """,
        secret_hash,
        principal.id,
        principal.role,
        sorted(principal.regions),
        principal.located,
        session.person.shown_as,
        session.csrf,
        subject,
        provider_session,
        now,
        session.expires_at,
    )


async def find_session(conn: Connection, secret_hash: bytes, now: datetime) -> Session | None:
    """Return who is signed in with this."""
    row = await conn.fetchrow(
        f"select {_COLUMNS} from session where secret_hash = $1 and expires_at > $2",
        secret_hash,
        now,
    )
    return _session(row) if row else None


async def delete_session(conn: Connection, secret_hash: bytes) -> None:
    """Sign out."""
    await conn.execute("delete from session where secret_hash = $1", secret_hash)


async def delete_sessions_of(
    conn: Connection, subject: str | None, provider_session: str | None
) -> list[Session]:
    """Sign out whom the provider names, by its session or else everywhere; returns who that was."""
    rows = await conn.fetch(
        f"""
        delete from session where case when $2::text is not null
            then provider_session = $2 and ($1::text is null or subject = $1)
            else subject = $1 end
        returning {_COLUMNS}
        """,
        subject,
        provider_session,
    )
    return [_session(row) for row in rows]


_COLUMNS = "principal, role, regions, located, shown_as, csrf, expires_at"


def _session(row: asyncpg.Record) -> Session:
    principal = Principal(
        row["principal"], row["role"], frozenset(row["regions"]), located=row["located"]
    )
    return Session(Person(principal, row["shown_as"]), row["csrf"], row["expires_at"])


# ---- Sealed credentials: only the hash of each is kept. -----------------------------------------


async def insert_break_glass(
    conn: Connection,
    identity: UUID,
    secret_hash: bytes,
    *,
    role: str,
    regions: list[str],
    sealed_by: str,
    sealed_at: datetime,
    expires_at: datetime,
) -> None:
    """Add one."""
    await conn.execute(
        """
        insert into break_glass
            (id, secret_hash, role, regions, sealed_by, sealed_at, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7)
        """,
        identity,
        secret_hash,
        role,
        regions,
        sealed_by,
        sealed_at,
        expires_at,
    )


async def find_break_glass(
    conn: Connection, secret_hash: bytes, now: datetime, *, lock: bool = False
) -> Principal | None:
    """Return whom a credential stands for that can still be opened; `lock` keeps others off."""
    row = await conn.fetchrow(
        """
        select id, role, regions from break_glass
        where secret_hash = $1 and opened_at is null and revoked_at is null and expires_at > $2
        """
        + (" for update" if lock else ""),
        secret_hash,
        now,
    )
    if row is None:
        return None
    return Principal(f"break-glass:{row['id']}", row["role"], frozenset(row["regions"]))


async def set_break_glass_opened(
    conn: Connection, secret_hash: bytes, token: UUID, *, by: str | None, now: datetime
) -> None:
    """Keep that it was opened, by whom and for which token; it never is again."""
    await conn.execute(
        """
        update break_glass set opened_at = $2, token = $3, opened_by = $4 where secret_hash = $1
        """,
        secret_hash,
        now,
        token,
        by,
    )


_BREAK_GLASS_COLUMNS = (
    "id, role, regions, sealed_by, sealed_at, expires_at, opened_at, opened_by, token, revoked_at,"
    " revoked_by"
)


def _envelope(row: asyncpg.Record) -> Envelope:
    return Envelope(**{**row, "regions": tuple(row["regions"])})


async def show_break_glass(
    conn: Connection, identity: UUID, *, lock: bool = False
) -> Envelope | None:
    """Return one, whatever its state; `lock` keeps others off it."""
    row = await conn.fetchrow(
        f"select {_BREAK_GLASS_COLUMNS} from break_glass where id = $1"
        + (" for update" if lock else ""),
        identity,
    )
    return _envelope(row) if row else None


async def page_of_break_glass(
    conn: Connection, regions: list[str], before: tuple[datetime, UUID] | None, limit: int
) -> list[Envelope]:
    """Return those that reach any of the regions, newest first, that come after the cursor."""
    at, identity = before or (None, None)
    rows = await conn.fetch(
        f"""
        select {_BREAK_GLASS_COLUMNS} from break_glass
        where regions && $1 and ($2::timestamptz is null or (sealed_at, id) < ($2, $3))
        order by sealed_at desc, id desc limit $4
        """,
        regions,
        at,
        identity,
        limit,
    )
    return [_envelope(row) for row in rows]


async def revoke_break_glass(conn: Connection, identity: UUID, by: str, now: datetime) -> None:
    """Revoke for ever, together with the token that it was opened for."""
    await conn.execute(
        """
        with revoked as (
            update break_glass set revoked_by = $2, revoked_at = $3
            where id = $1 and revoked_at is null returning token
        )
        update token t set revoked_at = coalesce(t.revoked_at, $3) from revoked r
        where t.id = r.token
        """,
        identity,
        by,
        now,
    )


# ---- What principals were called, and since when: rows beside the log, which can be taken away.


async def note_name(conn: Connection, principal: str, name: str, now: datetime) -> None:
    """Keep what a principal is called from now on, unless it is called so already."""
    await conn.execute(
        """
        insert into principal_name (principal, since, name)
        select $1::text, $3::timestamptz, $2::text
        where $2::text is distinct from (
            select name from principal_name where principal = $1
            order by since desc limit 1)
        on conflict (principal, since) do update set name = excluded.name
        """,
        principal,
        name,
        now,
    )


async def names_of(conn: Connection, principals: Iterable[str]) -> Names:
    """Return all names of these principals."""
    rows = await conn.fetch(
        "select principal, since, name from principal_name where principal = any($1)",
        sorted(set(principals)),
    )
    return Names(Name(**row) for row in rows)


async def names_called(conn: Connection, name: str) -> list[str]:
    """Return the principals that were ever called so."""
    rows = await conn.fetch(
        "select distinct principal from principal_name where name = $1 order by principal", name
    )
    return [row["principal"] for row in rows]


async def forget_name(conn: Connection, principal: str) -> int:
    """Take all names of a principal away, wherever they stand; returns how many there were."""
    rows = await conn.fetch(
        """
        with labels as (
            update token set label = 'forgotten' where 'token:' || id = $1),
        sessions as (
            update session set shown_as = 'you' where principal = $1)
        delete from principal_name where principal = $1 returning name
        """,
        principal,
    )
    return len(rows)


# ---- Who holds which credential, and who made it: read from what is kept of tokens and envelopes.

_LINEAGE = """
with recursive link (credential, other, held) as (
    -- Made by nobody known and for nobody named, as before migration 9, it leads to null, too.
    select 'token:' || id, created_by,
        case when created_by is null then person is null else created_by like 'break-glass:%' end
        from token
    union all select 'token:' || id, person, true from token where person is not null
    union all select 'break-glass:' || id, sealed_by, true from break_glass
    -- Opened by nobody knows whom, it leads to null.
    union all select 'break-glass:' || id, opened_by, true from break_glass
        where opened_at is not null
), known (id) as (
    select unnest($1::text[])
    union
    select l.other from known k join link l on l.credential = k.id where l.other is not null
)
select l.credential, l.other, l.held from known k join link l on l.credential = k.id
"""


async def find_lineage(conn: Connection, principals: list[str]) -> Lineage:
    """Return the lineage of these principals, up to whoever is at its beginning."""
    rows = await conn.fetch(_LINEAGE, principals)
    return Lineage(
        frozenset(
            Link(row["credential"], row["other"], row["held"])
            for row in rows
            if row["other"] is not None
        ),
        frozenset(row["credential"] for row in rows if row["other"] is None and row["held"]),
    )


# ---- How much each principal has read lately. ---------------------------------------------------


async def add_usage(conn: Connection, counted: Mapping[tuple[str, int, UUID], int]) -> None:
    """Add what one process has counted; in one order, so that two processes never deadlock."""
    keys = sorted(counted)
    await conn.execute(
        """
        insert into usage (principal, bucket, subject, reads)
        select * from unnest($1::text[], $2::bigint[], $3::uuid[], $4::bigint[])
        on conflict (principal, bucket, subject)
            do update set reads = usage.reads + excluded.reads
        """,
        [principal for principal, _, _ in keys],
        [bucket for _, bucket, _ in keys],
        [subject for _, _, subject in keys],
        [counted[key] for key in keys],
    )


async def usage_of(conn: Connection, principal: str, first_bucket: int) -> Usage:
    """Return what all processes have counted of a principal, from a bucket on."""
    usage = Usage()
    for row in await conn.fetch(
        """
        select min(bucket) bucket, subject, sum(reads)::bigint reads from usage
        where principal = $1 and bucket >= $2 group by subject
        """,
        principal,
        first_bucket,
    ):
        usage.add(row["bucket"], row["subject"], row["reads"])
    return usage


async def forget_usage(conn: Connection, before_bucket: int) -> None:
    """Drop what no longer counts."""
    await conn.execute("delete from usage where bucket < $1", before_bucket)
