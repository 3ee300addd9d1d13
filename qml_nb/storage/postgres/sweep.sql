-- Promote what is due, reclaim what lost its lease, prune what is old: up to `most` of each. Forget what has run out.
create or replace function qml.sweep(
  most integer, at float8, failed_ttl float8, most_finished bigint, attempts integer, lost text,
  silence float8,
  out promoted bigint, out reclaimed bigint, out failed bigint, out pruned bigint
) language plpgsql @pinned@ as $$
declare t float8 := qml.clock(at); excess bigint; more bigint; ended_ids uuid[];
begin
  with due as materialized (
    select j.id, j.queue, j.state from qml.job j where j.state in (2, 3) and j.run_ts <= t
     order by j.run_ts, j.id limit most for no key update skip locked
  ), moved as (
    update qml.job j set state = 0 from due where j.id = due.id
  ), counted as (
    insert into qml.count (queue, state, jobs)
    select c.queue, c.state, sum(c.jobs)
      from (select queue, state, -1 as jobs from due union all select queue, 0, 1 from due) c group by c.queue, c.state
  ), queues as (
    select queue, count(*) as jobs from due group by queue
  ) select coalesce(sum(q.jobs), 0), count(qml.wake(q.queue, q.jobs)) into promoted, more from queues q;

  with late as materialized (
    select j.id, j.queue, j.attempt >= greatest(j.max_retries + 1, attempts) as over
      from qml.job j where j.lease_ts <= t order by j.lease_ts, j.id limit most for update skip locked
  ), back as (
    update qml.job j set state = 0, lease_ts = null, worker_id = null from late where j.id = late.id and not late.over
  ), ended as (
    delete from qml.job j using late where j.id = late.id and late.over returning j.*
  ), kept as (
    insert into qml.done
    select id, queue, method, priority, max_retries, timeout, job_type, created_ts, 5, attempt, claim_id, run_ts, worker_id,
           null, started_ts, lost, lock_owner, lock_until, args, kwargs, metadata,
           extras, progress, t, t + failed_ttl, null
      from ended
  ), counted as (
    insert into qml.count (queue, state, jobs)
    select c.queue, c.state, sum(c.jobs)
      from (select queue, 1 as state, -1 as jobs from late union all
            select queue, case when over then 5 else 0 end, 1 from late) c group by c.queue, c.state
  ), queues as (
    select queue, count(*) filter (where not over) as jobs, count(*) filter (where over) as lost_jobs from late group by queue
  ) select coalesce(sum(q.jobs), 0), coalesce(sum(q.lost_jobs), 0), count(qml.wake(q.queue, q.jobs)),
           (select array_agg(l.id) from late l where l.over)
      into reclaimed, failed, more, ended_ids from queues q;
  if failed > 0 then
    perform qml.free_keys(ended_ids);
    perform qml.tell(ended_ids);
    perform qml.wake_for_turns(array(select d.queue from qml.done d where d.id = any(ended_ids)));
  end if;

  pruned := qml.prune(array(
    select d.id from qml.done d where d.expires_ts <= t order by d.expires_ts limit most for update skip locked));
  if most_finished is not null and pg_try_advisory_xact_lock('qml.job'::regclass::oid::int, 4) then  -- two would prune twice as much
    select coalesce(sum(c.jobs), 0) - most_finished into excess from qml.count c where c.state >= 4;
    if excess > 0 then
      pruned := pruned + qml.prune(array(
        select d.id from qml.done d order by d.id limit least(excess, most) for update skip locked));
    end if;
  end if;

  delete from qml.lock l where l.name = any(array(
    select o.name from qml.lock o where o.until <= t limit most for update skip locked));
  delete from qml.message m where m.id = any(array(
    select o.id from qml.message o where o.sent_ts < extract(epoch from clock_timestamp()) - 60
     order by o.id limit most for update skip locked));
  delete from qml.unique_key k where k.key = any(array(
    select o.key from qml.unique_key o where o.until <= t order by o.until limit most for update skip locked));
  delete from qml.watched w where w.job_id = any(array(
    select o.job_id from qml.watched o where o.until <= t order by o.until limit most for update skip locked));
  delete from qml.server s where s.id = any(array(
    select o.id from qml.server o where o.heartbeat_ts <= t - silence limit most for update skip locked));
  perform qml.add_up();
end $$;

-- Forget finished jobs. Returns how many.
create or replace function qml.prune(ids uuid[]) returns bigint language plpgsql @pinned@ as $$
declare gone bigint;
begin
  with pruned as (
    delete from qml.done d where d.id = any(ids) returning d.queue, d.state
  ), counted as (
    insert into qml.count (queue, state, jobs) select queue, state, -count(*) from pruned group by queue, state
  ) select count(*) into gone from pruned;
  if gone > 0 then perform qml.tell(ids); end if;
  return gone;
end $$;

-- Put one row for many into the counts, if they are many and nobody else is at it.
create or replace function qml.add_up() returns void language plpgsql as $$
begin
  if (select count(*) from (select from qml.count limit 1000) c) = 1000
     and pg_try_advisory_xact_lock('qml.job'::regclass::oid::int, 3) then
    with gone as (
      delete from qml.count c returning *
    ) insert into qml.count (queue, state, jobs)
      select queue, state, sum(jobs) from gone group by queue, state having sum(jobs) <> 0;
  end if;
end $$;
