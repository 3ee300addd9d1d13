-- What the busy connections of this database do at the moment: run, or wait for something.
select coalesce(wait_event_type || '/' || wait_event, 'running') as event, count(*)
  from pg_stat_activity
 where pid <> pg_backend_pid() and datname = current_database() and state = 'active'
 group by 1
