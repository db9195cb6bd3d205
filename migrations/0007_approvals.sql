-- What nobody does alone: who asked for it and why, who agreed, and when it was done.

create table approval (
    id           uuid primary key,
    act          text not null,
    subject      text not null,
    region       text not null,
    reason       text not null,
    requested_by text not null,
    requested_at timestamptz not null,
    expires_at   timestamptz not null,
    approved_by  text,
    approved_at  timestamptz,
    used_at      timestamptz,
    check ((approved_by is null) = (approved_at is null)),
    check (approved_by <> requested_by),
    check (used_at is null or approved_at is not null)
);

create index approval_page on approval (requested_at desc, id desc);
