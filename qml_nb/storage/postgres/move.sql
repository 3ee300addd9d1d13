-- Move jobs by hand. Returns the ids of those that were moved.
create or replace function qml.move(ids uuid[], target smallint, allowed smallint[], at float8, ttl float8, most bigint)
returns setof uuid language plpgsql @pinned@ as $$
declare t float8 := qml.clock(at); live uuid[]; finished uuid[]; back uuid[]; keyed boolean; moved uuid[] := '{}'; more uuid[]; ran text[];
begin
  select l.live, l.finished into live, finished from qml.lock_jobs(ids) l;
  if target < 4 then
    select coalesce(array_agg(d.id), '{}'), bool_or(d.extras is not null) into back, keyed
      from qml.done d where d.id = any(finished) and d.state = any(allowed);
    if cardinality(back) > 0 and most is not null then perform qml.lock_room(); end if;
    if keyed then
      back := qml.with_their_keys(array(select i from unnest(ids) i where i = any(back)), t);
    end if;
    if cardinality(back) > 0 and most is not null then perform qml.make_room(cardinality(back), most); end if;
    with old as (
      select j.id, j.queue, j.state from qml.job j where j.id = any(live) and j.state = any(allowed)
    ), changed as (
      update qml.job j set state = target, attempt = 0, run_ts = t, worker_id = null, lease_ts = null, started_ts = null, error = null
        from old where j.id = old.id
    ), counted as (
      insert into qml.count (queue, state, jobs) select queue, state, -count(*) from old group by queue, state
    ) select coalesce(array_agg(o.id), '{}'), array_agg(o.queue) filter (where o.state = 1) into moved, ran from old o;
    with back_again as (
      delete from qml.done d where d.id = any(back) returning d.*
    ), entered as (
      insert into qml.job
      select id, queue, method, priority, max_retries, timeout, job_type, created_ts, target, 0, claim_id, t, null, null, null, null,
             lock_owner, lock_until, args, kwargs, metadata, extras, progress
        from back_again order by id  -- as a push of the same ids goes, which this may wait for
    ), counted as (
      insert into qml.count (queue, state, jobs) select queue, state, -count(*) from back_again group by queue, state
    ) select coalesce(array_agg(id), '{}') into more from back_again;
    moved := moved || more;
    insert into qml.count (queue, state, jobs)
    select j.queue, target, count(*) from qml.job j where j.id = any(moved) group by j.queue;
    if target = 0 then
      perform qml.wake(j.queue, count(*)) from qml.job j where j.id = any(moved) group by j.queue;
    end if;
  else
    with old as (
      select d.id, d.queue, d.state from qml.done d where d.id = any(finished) and d.state = any(allowed)
    ), changed as (
      update qml.done d set state = target, finished_ts = t, expires_ts = t + ttl from old where d.id = old.id
    ), counted as (
      insert into qml.count (queue, state, jobs) select queue, state, -count(*) from old group by queue, state
    ) select coalesce(array_agg(id), '{}') into moved from old;
    with ended as (
      delete from qml.job j where j.id = any(live) and j.state = any(allowed) returning j.*
    ), kept as (
      insert into qml.done
      select id, queue, method, priority, max_retries, timeout, job_type, created_ts, target, attempt, claim_id, run_ts, worker_id,
             null, started_ts, error, lock_owner, lock_until, args, kwargs, metadata,
             extras, progress, t, t + ttl, null
        from ended
    ), counted as (
      insert into qml.count (queue, state, jobs) select queue, state, -count(*) from ended group by queue, state
    ) select coalesce(array_agg(e.id), '{}'), array_agg(e.queue) filter (where e.state = 1) into more, ran from ended e;
    perform qml.free_keys(more);
    perform qml.tell(more);
    moved := moved || more;
    insert into qml.count (queue, state, jobs)
    select d.queue, target, count(*) from qml.done d where d.id = any(moved) group by d.queue;
  end if;
  perform qml.wake_for_turns(ran);
  return query select m from unnest(moved) m;
end $$;

-- Let finished jobs take their keys again, in the order given. Returns those that have none, or none without an instant, or have taken it.
create or replace function qml.with_their_keys(ids uuid[], t float8) returns uuid[] language plpgsql as $$
declare keys text[];
begin
  keys := array(
    select case when d.extras ->> 'unique_for' is null then d.extras ->> 'unique_key' end
      from unnest(ids) with ordinality u(id, place) join qml.done d on d.id = u.id order by u.place);
  perform qml.take_keys(keys, ids, '{}', t);
  return array(
    select u.id from unnest(ids, keys) u(id, key) left join qml.unique_key k on k.key = u.key and k.job_id = u.id
     where u.key is null or k.key is not null);
end $$;
