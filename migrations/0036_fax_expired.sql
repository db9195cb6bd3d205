-- How many faxes expired within a day, so that no more of them go by their time than a share.

create index fax_expired on fax (region, ended_at) where state = 'expired';
