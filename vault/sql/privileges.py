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
    if not pg_has_role(current_user, '{SERVICE_ROLE}', 'set') then
        grant {SERVICE_ROLE} to current_user with set true;
    end if;
exception when invalid_parameter_value or syntax_error then
    grant {SERVICE_ROLE} to current_user;
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
grant execute on function trim_log(text, bigint, bigint) to {SERVICE_ROLE};
"""


async def owns(conn: asyncpg.Connection) -> bool:
    """Whether this account may change the schema."""
    may: bool = await conn.fetchval("select has_schema_privilege('public', 'create')")
    return may


async def create_role(conn: asyncpg.Connection) -> None:
    """Make the service's role where the server does not have it, and let this account act in it."""
    await conn.execute(_ROLE)


async def grant(conn: asyncpg.Connection) -> None:
    """Give the service's role what it may; the owner does this at every migration."""
    await create_role(conn)
    await conn.execute(_GRANTS)
