-- Since when what waits waits, so that a queue's age can be told.

alter table key_changed add column since timestamptz not null default now();
alter table order_look add column since timestamptz not null default now();
