-- Since when a record waits to be published, by the one clock that all processes share: the
-- database's. A row of the queue has it, and the checkpoint that takes the row keeps the oldest.

alter table log_queue add column at timestamptz not null default now();
alter table log_checkpoint add column oldest timestamptz;
