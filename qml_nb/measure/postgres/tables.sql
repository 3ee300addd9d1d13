-- What was done to the tables of an install since the statistics began. $1 schema, $2 tables.
select relname as table,
       n_tup_ins as inserts, n_tup_upd as updates, n_tup_hot_upd as hot_updates, n_tup_del as deletes,
       seq_scan as seq_scans, seq_tup_read as seq_rows_read, idx_scan as index_scans, idx_tup_fetch as index_rows_fetched,
       n_live_tup as live_rows, n_dead_tup as dead_rows,
       extract(epoch from last_vacuum)::float8 as vacuum_ts, extract(epoch from last_autovacuum)::float8 as autovacuum_ts,
       extract(epoch from last_analyze)::float8 as analyze_ts, extract(epoch from last_autoanalyze)::float8 as autoanalyze_ts,
       coalesce(pg_total_relation_size(relid), 0) as total_bytes
  from pg_stat_user_tables
 where schemaname = $1 and relname = any($2::text[])
 order by array_position($2::text[], relname::text)
