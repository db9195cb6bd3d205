-- A sign-in that was begun is kept by the browser alone, so that no stranger writes a row here. What
-- is good once (an answer of the identity provider, a log-out token) is remembered, as a hash,
-- when it was used, until it is good no more.

drop table sign_in;

create table taken_once (
    hash       bytea primary key,
    expires_at timestamptz not null
);

create index taken_once_expires on taken_once (expires_at);
create index approval_expires on approval (expires_at);
create index signal_at on signal (at);
