-- Since when a document waits to be judged anew by the retention policy, where `reviewed` is 0.
alter table document add column review_since timestamptz not null default now();
