-- How much the indexes of an install are used. $1 schema, $2 tables.
select relname as table, indexrelname as index,
       idx_scan as index_scans, idx_tup_read as entries_read, idx_tup_fetch as index_rows_fetched,
       coalesce(pg_relation_size(indexrelid), 0) as index_bytes
  from pg_stat_user_indexes
 where schemaname = $1 and relname = any($2::text[])
 order by array_position($2::text[], relname::text), indexrelname
