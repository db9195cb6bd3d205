-- What the service cannot be trusted with is said by functions of the owner, and those look into no
-- schema that a caller may fill.

alter function trim_log(text, bigint, bigint) set search_path = pg_catalog, public, pg_temp;

-- The only way to say how far the log is trimmed: never back, and over nothing that is young or has
-- no place yet. The note is the vault's signature, which readers check; the database cannot.
create function declare_log_minimum(wanted text, declared bigint, said text) returns void
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    if declared > (select coalesce(max(index) + 1, 0) from log_leaf where region = wanted)
        or exists (select from log_leaf
            where region = wanted and index < declared
                and index >= (select coalesce(max(size), 0) from log_minimum where region = wanted)
                and at > now() - log_floor())
    then
        raise exception 'no log is trimmed over records that are young or not there';
    end if;
    insert into log_minimum (region, size, note) values (wanted, declared, said)
    on conflict (region) do update set size = excluded.size, note = excluded.note
        where log_minimum.size <= excluded.size;
end
$$;
revoke execute on function declare_log_minimum(text, bigint, text) from public;
