-- Credentials that are sealed for the day the identity provider is down: each is opened once.

create table break_glass (
    id          uuid primary key,
    secret_hash bytea not null unique,
    role        text not null,
    regions     text[] not null,
    sealed_by   text not null,
    sealed_at   timestamptz not null,
    expires_at  timestamptz not null,
    opened_at   timestamptz,
    token       uuid references token (id),
    check ((opened_at is null) = (token is null))
);
