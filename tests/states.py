"""A database taken as it is and brought back later: a backup without a dump."""

import io

from keys.ground.postgres import Connection

State = dict[str, bytes]


async def take_state(conn: Connection) -> State:
    """Return every table as it is."""
    rows = await conn.fetch(
        "select tablename from pg_tables where schemaname = 'public' and tablename <> 'migration'"
    )
    state = {}
    for row in rows:
        buffer = io.BytesIO()
        await conn.copy_from_table(row["tablename"], output=buffer, format="binary")
        state[row["tablename"]] = buffer.getvalue()
    return state


async def bring_back(conn: Connection, state: State) -> None:
    """Make the database what it was when the state was taken."""
    async with conn.transaction():
        await conn.execute("set local session_replication_role = replica")
        for table in state:
            await conn.execute(f'delete from "{table}"')
        for table, rows in state.items():
            await conn.copy_to_table(table, source=io.BytesIO(rows), format="binary")
