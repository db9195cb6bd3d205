-- What a principal was called, and from when on: beside the log, which holds ids alone and for ever,
-- so that it can be taken away. A name is good until the next one begins.

create table principal_name (
    principal text not null,
    since     timestamptz not null,
    name      text not null,
    primary key (principal, since)
);

create index principal_name_name on principal_name (name);

insert into principal_name (principal, since, name)
select 'token:' || id, created_at, label from token
union all
select 'break-glass:' || id, sealed_at, 'envelope for ' || role from break_glass
union all
select principal, min(created_at), max(shown_as) from session where shown_as <> 'you' group by principal;
