"""The statements of the stores' identities."""

from vault.sql.connection import Connection

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
