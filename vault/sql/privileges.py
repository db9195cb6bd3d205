"""What the service may do in its database: everything it needs, and to the access log only add."""

import asyncpg

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
