-- Counters of the whole database, and of the server's log of changes; on a standby, the place that it has replayed.
select xact_commit as commits, xact_rollback as rollbacks, deadlocks, conflicts,
       blks_hit as blocks_hit, blks_read as blocks_read, temp_bytes,
       pg_database_size(datid) as database_bytes,
       (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end - '0/0')::bigint as wal_bytes,
       current_setting('max_connections')::int as max_connections,
       pg_has_role('pg_read_all_stats', 'usage') as sees_all
  from pg_stat_database
 where datname = current_database()
