-- When everything of a region had last been looked at; a look that began after it may be under way.
alter table damage_look add column whole_at timestamptz;
update damage_look set whole_at = ended_at;
