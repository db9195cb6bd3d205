-- The log's own retention: what a record said goes when its time is over; its place and its hash
-- stay, so that the tree and every proof of what remains hold as before.

-- Below which size records may be gone, as the vault's key has signed it, and up to where the
-- bucket's entries were removed.
create table log_minimum (
    region text primary key,
    size   bigint not null,
    note   text not null,
    purged bigint not null default 0
);

-- No record that is younger goes, whatever a policy says and whoever asks.
create function log_floor() returns interval language sql immutable as $$
    select interval '2 years'
$$;

drop trigger access_record_insert_only on access_record;
create trigger access_record_insert_only before update or truncate on access_record
    for each statement execute function refuse_change();
create trigger access_record_floor before delete on access_record
    for each row when (old.at > now() - log_floor()) execute function refuse_change();

drop trigger log_leaf_insert_only on log_leaf;
create trigger log_leaf_insert_only before delete or truncate on log_leaf
    for each statement execute function refuse_change();
-- What a leaf is found by goes with its record; all else of it stands for ever.
create trigger log_leaf_floor before update on log_leaf
    for each row when (
        (old.region, old.index, old.record, old.leaf_hash)
            is distinct from (new.region, new.index, new.record, new.leaf_hash)
        or num_nonnulls(new.at, new.action, new.principal, new.document, new."order",
            new.purpose, new.decision, new.region_to) > 0
        or old.at is null or old.at > now() - log_floor())
    execute function refuse_change();

-- The only way in which the service may remove records: those below a place, all past the floor.
create function trim_log(wanted text, first bigint, past bigint) returns bigint
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    trimmed bigint;
begin
    if past > (select coalesce(max(size), 0) from log_minimum where region = wanted) then
        raise exception 'no signed statement says that this log is trimmed so far';
    end if;
    delete from access_record r using log_leaf l
        where l.region = wanted and l.index >= first and l.index < past and r.id = l.record;
    update log_leaf l set at = null, action = null, principal = null, document = null,
            "order" = null, purpose = null, decision = null, region_to = null
        where l.region = wanted and l.index >= first and l.index < past and l.at is not null;
    get diagnostics trimmed = row_count;
    return trimmed;
end
$$;
revoke execute on function trim_log(text, bigint, bigint) from public;
