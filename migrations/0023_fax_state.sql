-- `GET /v1/faxes?state=`: nearly every receipt says `delivered`, and those are found by the page's
-- index; what is waiting, failed or expired is found here, however many were delivered.

create index fax_state on fax (region, state, received_at desc, id desc)
    where state <> 'delivered';
