-- The form of the data, version 1. `qml.NAME` stands for a name of this install: "schema"."table_NAME", and `qml.job` for
-- the table itself. Instants are POSIX seconds of the server's clock; states are numbered as JobState lists them:
-- 0 enqueued, 1 processing, 2 scheduled, 3 awaiting_retry, 4 succeeded, 5 failed, 6 deleted.
--
-- What lives and what is finished lie apart: the live table stays small, so that its plans and its vacuum hold, and
-- history only grows at its end.
--
-- The order in which everybody locks, so that no circle of waiting can close:
-- 1. a recurring schedule;
-- 2. jobs that are there, by id: live ones, then finished ones;
-- 3. the room of the storage (`make_room`);
-- 4. bounds of queues, by name: `limits` by a push, `turn` by a claim;
-- 5. unique keys, by name. Nobody locks one that an unfinished job has, but who holds that job;
-- 6. rows of new jobs, by id.
-- Out of that order (a claim its jobs, a push those that it drops, a sweep all that it touches) one takes only what nobody
-- holds, and passes over the rest.
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
  extras       json,
  progress     json,
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

-- What queues may do, where that was set. Of those with a concurrency or a rate a claim locks the row in `turn`, which says up
-- to when turns are used; a push into a bounded queue locks the other one, perhaps for as long as a caller's transaction
-- takes, and claims go on meanwhile.
create table qml.limits (
  queue text primary key, concurrency integer, rate float8, burst integer not null, max_waiting integer, when_full text not null
);
create table qml.turn (queue text primary key, used_ts float8 not null) with (fillfactor = 50);

-- Which job has taken each unique key, and until when; null: while it is unfinished.
create table qml.unique_key (key text primary key, job_id uuid not null, until float8)
  with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index on qml.unique_key (until) where until is not null;

-- Of which jobs it is told what becomes of them. Who watches asks again after a while, so a crash may forget it.
create unlogged table qml.watched (job_id uuid primary key, until float8 not null)
  with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index on qml.watched (until);

create table qml.lock (name text primary key, owner text not null, until float8 not null);
create table qml.recurring (id text primary key, schedule bytea not null, next_ts float8);  -- null: it is off, or fires no more
create index on qml.recurring (next_ts) where next_ts is not null;
create table qml.server (id text primary key, server bytea not null, started_ts float8 not null, heartbeat_ts float8 not null);
create table qml.message (id bigserial primary key, message bytea not null, sent_ts float8 not null);
