-- Whose hands a credential is in, and all that an approval binds.

-- The person who holds a token, as the id under which the same person signs in; null is not said.
alter table token add column person text;

-- Who opened an envelope, where that was shown with a credential of one's own.
alter table break_glass
    add column opened_by  text,
    add column revoked_by text,
    add column revoked_at timestamptz,
    add check ((revoked_by is null) = (revoked_at is null)),
    add check (opened_by is null or opened_at is not null);

create index break_glass_page on break_glass (sealed_at desc, id desc);

-- What was asked for before this lacks what it would have to bind, and can be used no more: it
-- lapses within a day, and is asked for again.
alter table approval
    add column purpose   text,
    add column reference text,
    add column days      integer,
    add column ended_as  text check (ended_as in ('declined', 'withdrawn')),
    add column ended_by  text,
    add column ended_at  timestamptz,
    add check ((ended_as is null) = (ended_by is null) and (ended_as is null) = (ended_at is null)),
    add check (ended_at is null or used_at is null);
