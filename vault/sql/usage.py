"""How much each principal has read lately."""

from collections.abc import Mapping
from uuid import UUID

from vault.domain.limits import Usage
from vault.sql.connection import Connection


async def add(conn: Connection, counted: Mapping[tuple[str, int, UUID], int]) -> None:
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


async def of(conn: Connection, principal: str, first_bucket: int) -> Usage:
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


async def forget(conn: Connection, before_bucket: int) -> None:
    """Drop what no longer counts."""
    await conn.execute("delete from usage where bucket < $1", before_bucket)
