-- People who sign in at the identity provider: what was begun, and who is signed in.
-- Only hashes of what a browser holds are kept.

create table sign_in (
    state_hash   bytea primary key,
    browser_hash bytea not null,
    nonce        text not null,
    verifier     text not null,
    expires_at   timestamptz not null
);

create index sign_in_expires on sign_in (expires_at);

create table session (
    secret_hash bytea primary key,
    principal   text not null,
    role        text not null,
    regions     text[] not null,
    located     text,
    shown_as    text not null,
    csrf        text not null,
    subject     text not null,
    provider_session text,
    created_at  timestamptz not null,
    expires_at  timestamptz not null
);

create index session_subject on session (subject);
create index session_expires on session (expires_at);
