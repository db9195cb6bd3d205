"""People signing in and signed in: only hashes of what their browsers hold are kept."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from vault.domain.access import Principal
from vault.domain.people import Person
from vault.sql.connection import Connection


@dataclass(frozen=True, slots=True)
class Session:
    """A person who is signed in, and what a form of theirs has to carry."""

    person: Person
    csrf: str
    expires_at: datetime


async def take(conn: Connection, hashed: bytes, expires_at: datetime) -> bool:
    """Take what is good once, with the transaction that uses it; False when it was taken before."""
    done = await conn.execute(
        "insert into taken_once (hash, expires_at) values ($1, $2) on conflict do nothing",
        hashed,
        expires_at,
    )
    return done == "INSERT 0 1"


async def insert(
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


async def find(conn: Connection, secret_hash: bytes, now: datetime) -> Session | None:
    """Return who is signed in with this."""
    row = await conn.fetchrow(
        f"select {_COLUMNS} from session where secret_hash = $1 and expires_at > $2",
        secret_hash,
        now,
    )
    return _session(row) if row else None


async def delete(conn: Connection, secret_hash: bytes) -> None:
    """Sign out."""
    await conn.execute("delete from session where secret_hash = $1", secret_hash)


async def delete_of(
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
