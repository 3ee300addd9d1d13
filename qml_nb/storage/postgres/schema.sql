-- The form of the data, version 1. `qml.NAME` stands for a name of this install: "schema"."table_NAME", and `qml.job` for
-- the table itself. Instants are POSIX seconds of the server's clock; states are numbered as JobState lists them:
-- 0 enqueued, 1 processing, 2 scheduled, 3 awaiting_retry, 4 succeeded, 5 failed, 6 deleted.
--
-- What lives and what is finished lie apart: the live table stays small, so that its plans and its vacuum hold, and
-- history only grows at its end.
create table qml.job (
  id           uuid primary key,
  queue        text not null,
  method       text not null,
  priority     integer not null,
  max_retries  integer not null check (max_retries >= 0),
  timeout      float8,
  job_type     text,
  created_ts   float8 not null,
  state        smallint not null,
  attempt      integer not null default 0 check (attempt >= 0),
  claim_id     bigint not null default 0,
  run_ts       float8,
  worker_id    text,
  lease_ts     float8,
  started_ts   float8,
  error        text,
  lock_owner   text,
  lock_until   float8,
  args         json not null,
  kwargs       json not null,
  metadata     json not null,
  constraint live check (state in (0, 1, 2, 3)),
  constraint leased check ((state = 1) = (lease_ts is not null)),
  constraint claimed check (state <> 1 or (worker_id is not null and started_ts is not null and claim_id > 0)),
  constraint due check (state < 2 or run_ts is not null),
  constraint locked check ((lock_owner is null) = (lock_until is null))
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_analyze_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index on qml.job (queue, priority desc, id) where state = 0;
create index on qml.job (run_ts) where state in (2, 3);
-- Not "where state = 1": the planner would read this index for a settlement, in place of the key.
create index on qml.job (lease_ts) where lease_ts is not null;

create table qml.done (
  like qml.job,
  finished_ts  float8 not null,
  expires_ts   float8,
  result       json,
  primary key (id),
  constraint finished check (state in (4, 5, 6)),
  constraint free check (lease_ts is null)
) with (autovacuum_vacuum_insert_scale_factor = 0.2);
create index on qml.done (state, id);
create index on qml.done (expires_ts) where expires_ts is not null;

-- How many jobs there are: the sum of what each statement changed. A sweep adds rows up, so that reading stays cheap.
create table qml.count (queue text not null, state smallint not null, jobs bigint not null)
  with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

create sequence qml.claim_ids;
create table qml.paused (queue text primary key);
create table qml.lock (name text primary key, owner text not null, until float8 not null);
create table qml.recurring (id text primary key, schedule bytea not null);
create table qml.server (id text primary key, server bytea not null, started_ts float8 not null, heartbeat_ts float8 not null);
create table qml.message (id bigserial primary key, message bytea not null, sent_ts float8 not null);
