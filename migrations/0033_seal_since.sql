-- Since when a scope waits for a seal: one that waits too long is a seal that is overdue.
alter table key_dirty add column since timestamptz not null default now();
