-- The connections to this database by state, without this one. Of other roles only a member of pg_read_all_stats sees it.
select case when query = '<insufficient privilege>' then 'hidden' else coalesce(state, 'unknown') end as state, count(*)
  from pg_stat_activity
 where pid <> pg_backend_pid() and datname = current_database()
   and (backend_type = 'client backend' or backend_type is null)
 group by 1
 order by 1
