"""The statements that fill an empty database with the rows of a dump, table by table, as data."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from vault.sql.connection import Connection


async def tables(conn: Connection) -> Mapping[str, frozenset[str]]:
    """Return the tables of the schema but that of migrations, each with its columns."""
    rows = await conn.fetch(
        """
        select c.relname "table", array_agg(a.attname::text) columns
        from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
            and c.relname <> 'migration' and a.attnum > 0
            and not a.attisdropped and a.attgenerated = ''
        group by c.relname
        """
    )
    return {row["table"]: frozenset(row["columns"]) for row in rows}


async def in_order(conn: Connection, names: Iterable[str]) -> list[str]:
    """Return tables in an order in which each comes after those that it refers to."""
    rows = await conn.fetch(
        """
        select conrelid::regclass::text "from", confrelid::regclass::text "to"
        from pg_constraint where contype = 'f' and conrelid <> confrelid
            and connamespace = 'public'::regnamespace
        """
    )
    waiting, placed = set(names), list[str]()
    needed = {name: {row["to"] for row in rows if row["from"] == name} for name in waiting}
    while waiting:
        free = sorted(name for name in waiting if not needed[name] & waiting)
        placed += free or sorted(waiting)
        waiting -= set(placed)
    return placed


async def begin(conn: Connection, names: Sequence[str]) -> None:
    """Empty the tables and keep their triggers still, until `end`; for the owner only."""
    await conn.execute("set constraints all deferred")
    for name in names:
        await conn.execute(f'alter table "{name}" disable trigger user')
    await conn.execute("truncate " + ", ".join(f'"{name}"' for name in names))


async def copy(
    conn: Connection, table: str, columns: Sequence[str], rows: AsyncIterator[bytes]
) -> None:
    """Add rows in the text form of COPY; both names come from `tables`."""
    await conn.copy_to_table(table, source=rows, columns=columns, format="text", timeout=None)


async def end(conn: Connection, names: Sequence[str], sequences: Mapping[str, int]) -> None:
    """Go on with the sequences where the dump was, and let triggers act again."""
    known = await conn.fetch(
        "select relname from pg_class where relkind = 'S' and relnamespace = 'public'::regnamespace"
    )
    for name in {row["relname"] for row in known} & set(sequences):
        await conn.execute("select setval($1::text::regclass, $2)", name, sequences[name])
    # A table whose rows are yet to be compared with another's cannot be altered.
    await conn.execute("set constraints all immediate")
    for name in names:
        await conn.execute(f'alter table "{name}" enable trigger user')
