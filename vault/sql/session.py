"""
What a session must be before the vault uses it: asked of each new connection, never believed.

A pooler on the way may drop what was asked for, and a server, a database or a role may have
settings under which a commit is no promise. Both are refused with a sentence; nothing is worked
around but `synchronous_commit`, which is any session's own.
"""

import asyncio
from collections.abc import Mapping

import asyncpg

from vault.errors import ConfigurationError, DatabaseUnavailableError
from vault.sql.connection import Connection

# ---- What the service may do in its database: everything it needs, and to the access log only
# add.

#: Who serves acts in this role, whatever account it came in with.
SERVICE_ROLE = "portvault_service"
#: Tables that are only ever added to; triggers refuse changes to everybody else, too.
ADDED_TO = ("access_record", "log_leaf", "log_checkpoint", "log_cosignature")

_ROLE = f"""
do $$
begin
    if not exists (select from pg_roles where rolname = '{SERVICE_ROLE}') then
        create role {SERVICE_ROLE} nologin;
    end if;
exception when duplicate_object or unique_violation then
    null;  -- made by another database of this server, in this moment
end
$$;
do $$
begin
    -- What a version does not know must not even be parsed by it.
    if current_setting('server_version_num')::int < 160000 then
        if not pg_has_role(current_user, '{SERVICE_ROLE}', 'member') then
            grant {SERVICE_ROLE} to current_user;
        end if;
    elsif not pg_has_role(current_user, '{SERVICE_ROLE}', 'set') then
        execute 'grant {SERVICE_ROLE} to current_user with set true';
    end if;
end
$$;
do $$
begin
    -- Which standbys have replayed a seal stands where only monitors may look.
    if not pg_has_role('{SERVICE_ROLE}', 'pg_monitor', 'usage') then
        grant pg_monitor to {SERVICE_ROLE};
    end if;
exception when insufficient_privilege then
    null;
end
$$;
"""
_GRANTS = f"""
grant usage on schema public to {SERVICE_ROLE};
grant usage, select on all sequences in schema public to {SERVICE_ROLE};
grant select, insert, update, delete on all tables in schema public to {SERVICE_ROLE};
revoke insert, update, delete on migration from {SERVICE_ROLE};
revoke update, delete on {", ".join(ADDED_TO)} from {SERVICE_ROLE};
revoke insert, update, delete on log_minimum from {SERVICE_ROLE};
grant update (purged) on log_minimum to {SERVICE_ROLE};
grant execute on function trim_log(text, bigint, bigint),
    declare_log_minimum(text, bigint, text) to {SERVICE_ROLE};
"""


async def owns(conn: asyncpg.Connection) -> bool:
    """Whether this account may change the schema."""
    may: bool = await conn.fetchval("select has_schema_privilege('public', 'create')")
    return may


async def create_role(conn: asyncpg.Connection) -> None:
    """Make the service's role where the server does not have it, and let this account act in it."""
    await conn.execute(_ROLE)


async def let_in(conn: asyncpg.Connection) -> None:
    """Let the service's role log in by itself, where the server lets nobody else come as it."""
    await create_role(conn)
    if not await conn.fetchval("select rolcanlogin from pg_roles where rolname = $1", SERVICE_ROLE):
        await conn.execute(f"alter role {SERVICE_ROLE} login")


async def grant(conn: asyncpg.Connection) -> None:
    """Give the service's role what it may; the owner does this at every migration."""
    await create_role(conn)
    await conn.execute(_GRANTS)


# ---- Session. -----------------------------------------------------------------------------------

POSTGRESQL_MIN = 15
POOLER_SECONDS = 10.0
_TRIES = 3

#: What every session of the service asks for, beside its own time limits.
SERVICE_SESSION = {
    "role": SERVICE_ROLE,
    # Nobody's temporary table, nor a schema of the account's own name, stands before the vault's.
    "search_path": "public, pg_temp",
    "row_security": "on",
    "default_transaction_isolation": "read committed",
}
#: What only the server, the database or a superuser sets, the value that a promise needs, and why.
REQUIRED = {
    "fsync": ("on", "a crash of the machine would lose what was acknowledged"),
    "full_page_writes": ("on", "a crash of the machine would tear pages"),
    "zero_damaged_pages": ("off", "damaged pages would be emptied without a word"),
    "ignore_checksum_failure": ("off", "damaged pages would be read as if they were sound"),
    "ignore_system_indexes": ("off", "what the indexes hold would not be looked at"),
    "session_replication_role": ("origin", "triggers that guard the access log would not run"),
    "default_transaction_read_only": ("off", "nothing could be recorded"),
}
_ASK = """
    select name, setting from pg_settings where name = any($1)
    union all select 'role', current_user::text
    union all select 'synchronous_commit',
        case when current_setting('synchronous_commit') in ('on', 'remote_apply')
            then current_setting('synchronous_commit')
            else set_config('synchronous_commit', 'on', false) end
"""
_UNLOGGED = """
    select c.relname::text from pg_class c
    where c.relnamespace = 'public'::regnamespace
        and (c.relpersistence = 'u' or c.relrowsecurity)
    order by 1 limit 1
"""
_POOLED = (
    "this address leads through a pooler that gives each transaction another session (PgBouncer "
    "with pool_mode = transaction): name PostgreSQL itself, or a pooler in session mode; the vault "
    "keeps a pool of its own"
)
#: What a prepared statement meets on a session that was another client's a moment ago.
_NOT_OURS = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)


class SessionRefusedError(DatabaseUnavailableError):
    """A session with the database is not what the vault needs."""


def require_server(conn: Connection) -> None:
    """Raise `ConfigurationError` for what is no PostgreSQL, or too old; without a query."""
    settings = conn.get_settings()
    said = str(getattr(settings, "server_version", ""))
    if hasattr(settings, "crdb_version"):
        raise ConfigurationError(
            "the database is CockroachDB, whose advisory locks hold nothing; the vault needs "
            f"PostgreSQL {POSTGRESQL_MIN} or later"
        )
    if "-YB-" in said:
        raise ConfigurationError(
            f"the database is YugabyteDB; the vault needs PostgreSQL {POSTGRESQL_MIN} or later"
        )
    if (version := conn.get_server_version().major) < POSTGRESQL_MIN:
        raise ConfigurationError(
            f"PostgreSQL {version} is too old; {POSTGRESQL_MIN} or later is needed"
        )


async def require_session(conn: Connection, asked: Mapping[str, str]) -> None:
    """
    Raise `SessionRefusedError` where a setting is not what was asked for, or what a promise needs.

    One statement; `asked` are the parameters that the connection was opened with, times in ms.
    """
    require_server(conn)
    names = [*asked, *REQUIRED]
    try:
        found = {row["name"]: row["setting"] for row in await conn.fetch(_ASK, names)}
    except _NOT_OURS:
        raise SessionRefusedError(_POOLED) from None
    for name, (value, why) in REQUIRED.items():
        if found.get(name) != value:
            raise SessionRefusedError(
                f"PostgreSQL has {name} = {found.get(name)}, and {why}: set it to {value} (look at "
                "postgresql.conf, alter system, alter database and alter role)"
            )
    for name, value in asked.items():
        if value == "none":
            continue
        if name in found and found[name] != value.removesuffix("ms"):
            raise SessionRefusedError(
                f"a session has {name} = {found[name]}, where the vault asked for {value}: "
                "something on the way drops it, such as PgBouncer's ignore_startup_parameters; "
                "name PostgreSQL itself"
            )


async def require_durable_tables(conn: Connection) -> None:
    """Raise `ConfigurationError` that names a table which a crash empties, or which hides rows."""
    table = await conn.fetchval(_UNLOGGED)
    if table is not None:
        raise ConfigurationError(
            f"table {table} is unlogged, or has row security: undo it with `alter table {table} "
            "set logged` or `disable row level security`; in between it may hide or lose rows"
        )


async def require_own_session(conn: Connection, dsn: str) -> None:
    """Raise `SessionRefusedError` when other sessions share this one's server process."""
    try:
        async with asyncio.timeout(POOLER_SECONDS):
            # A pooler makes up the number that is said while connecting.
            if await _process(conn) == conn.get_server_pid():
                return
            other = await asyncpg.connect(dsn, statement_cache_size=0)
            try:
                for _ in range(_TRIES):
                    await _compare(conn, other)
            finally:
                other.terminate()
    except _NOT_OURS:
        raise SessionRefusedError(_POOLED) from None


async def _compare(conn: Connection, other: Connection) -> None:
    """Hold a server process in one session's transaction, and see whose it was and is."""
    before = await _process(conn)
    async with other.transaction():
        held = await other.fetchval("select pg_backend_pid()")
        if held == before or await _process(conn) != before:
            raise SessionRefusedError(_POOLED)


async def _process(conn: Connection) -> int:
    async with conn.transaction():
        process: int = await conn.fetchval("select pg_backend_pid()")
    return process


async def powers(conn: Connection) -> str | None:
    """Return what the account that came in is too much for a service: a phrase, or None."""
    row = await conn.fetchrow(
        """
        select r.rolname::text name, r.rolsuper, r.rolcreaterole, r.rolreplication, r.rolbypassrls,
            exists (select from pg_class c where c.relnamespace = 'public'::regnamespace
                and pg_has_role(r.oid, c.relowner, 'member')) owns,
            exists (select from pg_database d where d.datname = current_database()
                and pg_has_role(r.oid, d.datdba, 'member')) owns_database,
            exists (select from pg_roles p where pg_has_role(r.oid, p.oid, 'member')
                and p.rolname in ('pg_read_server_files', 'pg_write_server_files',
                    'pg_execute_server_program')) files
        from pg_roles r where r.rolname = session_user
        """
    )
    named = (
        ("rolsuper", "is a superuser, who reads the server's files"),
        ("owns", "owns tables of the vault, and may undo what guards its log"),
        ("owns_database", "owns the database"),
        ("files", "may reach the server's files"),
        ("rolcreaterole", "may make roles"),
        ("rolreplication", "may copy the whole database"),
        ("rolbypassrls", "may bypass row security"),
    )

    found = next((words for name, words in named if row and row[name]), None)
    return f"{row['name']} {found}" if row and found else None
