-- Who keeps vacuum from removing dead rows of this database, the oldest first. A VACUUM itself does not.
select 'connection' as kind, pid::text as name, coalesce(state, backend_type, 'hidden') as state,
       extract(epoch from clock_timestamp() - xact_start)::float8 as seconds,
       greatest(age(backend_xmin), age(backend_xid)) as transactions
  from pg_stat_activity
 where pid <> pg_backend_pid()
   and pid not in (select pid from pg_stat_progress_vacuum)
   and (backend_xmin is not null or backend_xid is not null)
   and (datname = current_database() or datname is null)
union all
select 'prepared transaction', gid, 'prepared', extract(epoch from clock_timestamp() - prepared)::float8, age(transaction)
  from pg_prepared_xacts
 where database = current_database()
union all
-- Since when a slot is inactive is known from PostgreSQL 17 on.
select 'replication slot', slot_name, case when active then 'active' else 'inactive' end,
       extract(epoch from clock_timestamp() - (to_jsonb(s) ->> 'inactive_since')::timestamptz)::float8, age(xmin)
  from pg_replication_slots s
 where xmin is not null
order by seconds desc nulls first, transactions desc
