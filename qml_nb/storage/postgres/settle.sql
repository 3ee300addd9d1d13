-- Write what became of claims. Returns those that were still held, as ids and claims; null for all of them.
create or replace function qml.settle(
  ids uuid[], claims bigint[], states smallint[], results json[], errors text[], delays float8[],
  at float8, completed_ttl float8, failed_ttl float8, out written uuid[], out held bigint[]
) language plpgsql @pinned@ as $$
declare t float8 := qml.clock(at); keyed boolean; watched boolean; limited boolean;
begin
  perform from qml.job j where j.id = any(ids) order by j.id for update;  -- in the order in which everybody locks
  with told as materialized (
    select * from unnest(ids, claims, states, results, errors, delays) u(id, claim_id, state, result, error, delay)
  ), ended as (
    delete from qml.job j using told u
     where j.id = u.id and j.state = 1 and j.claim_id = u.claim_id and u.state in (4, 5)
    returning j.*, u.state as ends, u.result as returned, u.error as failure
  ), kept as (
    insert into qml.done
    select id, queue, method, priority, max_retries, timeout, job_type, created_ts, ends, attempt, claim_id, run_ts, worker_id,
           null, started_ts, failure, lock_owner, lock_until, args, kwargs, metadata,
           extras, progress, t, t + case when ends = 4 then completed_ttl else failed_ttl end, returned
      from ended
    returning id, claim_id, queue, state, extras is not null as keyed
  ), again as (
    update qml.job j
       set state = u.state, lease_ts = null, worker_id = null,
           run_ts = case when u.state = 3 then t + u.delay else j.run_ts end,
           error = case when u.state = 3 then u.error else j.error end,
           started_ts = case when u.state = 3 then j.started_ts end,
           attempt = case when u.state = 3 then j.attempt else j.attempt - 1 end
      from told u
     where j.id = u.id and j.state = 1 and j.claim_id = u.claim_id and u.state in (0, 3)
    returning j.id, j.claim_id, j.queue, j.state, false
  ), moved as (
    select * from kept union all select * from again
  ), counted as (
    insert into qml.count (queue, state, jobs)
    select c.queue, c.state, sum(c.jobs)
      from (select queue, state, 1 as jobs from moved union all select queue, 1, -1 from moved) c
     group by c.queue, c.state
  ) select array_agg(id), array_agg(claim_id), bool_or(m.keyed) into written, held, keyed from moved m;
  if keyed then perform qml.free_keys(written); end if;
  select exists (select from qml.watched), exists (select from qml.turn) into watched, limited;
  if watched then perform qml.tell(array(select d.id from qml.done d where d.id = any(written))); end if;
  if limited then perform qml.wake_for_turns(array(select g.queue from qml.get(written) g)); end if;
  if 0 = any(states) then
    perform qml.wake(j.queue, count(*)) from qml.job j where j.id = any(written) and j.state = 0 group by j.queue;
  end if;
  if cardinality(written) = cardinality(ids) then
    written := null;
  else
    written := coalesce(written, '{}');
  end if;
end $$;
