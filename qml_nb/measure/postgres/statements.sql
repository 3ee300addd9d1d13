-- The statements that name an install, those that made it aside, the costliest first. $1 the start of its names: schema.table, $2 how many.
select query, calls, total_exec_time as total_ms, mean_exec_time as mean_ms, max_exec_time as max_ms, rows,
       wal_bytes::bigint as wal_bytes,
       (sum(calls) over ())::bigint as all_calls, sum(total_exec_time) over () as all_ms
  from pg_stat_statements
 where dbid = (select oid from pg_database where datname = current_database())
   and toplevel and query !~* '^(\s|--[^\n]*\n)*(create|alter|drop)\y'
   and strpos(replace(query, '"', ''), $1) > 0
 order by total_exec_time desc
 limit $2
