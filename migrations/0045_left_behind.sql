-- When a restore left behind what has a row and whose key is in no copy of the tree: nobody shredded
-- it, so it is not called that, and no seal waits for its key.
alter table document add column left_at timestamptz;
alter table fax add column left_at timestamptz;
