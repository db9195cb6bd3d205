-- How long an end waits for its reversal is part of the policy in force, so that every process
-- judges by the same, and a changed setting has the documents judged anew.

alter table retention_policy add column grace interval;
