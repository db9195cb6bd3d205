"""What an Idempotency-Key of a principal got, and the MAC of what it asked for."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from keys.keyring import WrappedKey
from vault.sql.connection import Connection


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a key made, the MAC of its request, and the wrapped key that the MAC is under."""

    resource: UUID
    #: None where the resource has no data key: its rows say what was asked.
    fingerprint: bytes | None
    #: None once the data key is destroyed.
    wrapped: WrappedKey | None


async def find(conn: Connection, principal: str, key: str) -> Claimed | None:
    """Return what the request that used the key first has made."""
    row = await conn.fetchrow(
        """
        select i.resource, i.fingerprint, k.id, k.region, k.scope, k.scope_epoch, k.wrap
        from idempotency i left join data_key k on k.id = i.resource
        where i.principal = $1 and i.key = $2
        """,
        principal,
        key,
    )
    if row is None:
        return None
    resource, fingerprint, *wrapped = row
    return Claimed(resource, fingerprint, WrappedKey(*wrapped) if wrapped[0] else None)


async def insert(
    conn: Connection,
    principal: str,
    key: str,
    *,
    fingerprint: bytes | None,
    resource: UUID,
    now: datetime,
) -> bool:
    """Remember the result with the transaction that makes it; False when another was first."""
    done = await conn.execute(
        """
        insert into idempotency (principal, key, fingerprint, resource, created_at)
        values ($1, $2, $3, $4, $5) on conflict do nothing
        """,
        principal,
        key,
        fingerprint,
        resource,
        now,
    )
    return done == "INSERT 0 1"


async def forget(conn: Connection, region: str, before: datetime) -> int:
    """Forget keys that were used first before then, in whichever region; returns how many."""
    done = await conn.execute("delete from idempotency where created_at < $1", before)
    faxes = await conn.execute(
        """
        update fax set idempotency_key = null, fingerprint = null
        where region = $1 and idempotency_key is not null and received_at < $2
        """,
        region,
        before,
    )
    return int(done.split()[-1]) + int(faxes.split()[-1])
