-- Store new jobs. Returns the ids of those that were stored; null for all of them.
-- An array of one element is what all jobs have in common, an empty one is null for each.
create or replace function qml.push(
  ids uuid[], queues text[], methods text[], priorities integer[], retries integer[], timeouts float8[], types text[],
  created float8[], states smallint[], runs float8[], args json[], kwargs json[], metadata json[], most bigint
) returns uuid[] language plpgsql @pinned@ as $$
declare stored uuid[]; old uuid[]; woken bigint;
begin
  if most is not null then
    perform qml.make_room((select count(*) from unnest(ids) u(id)
       where not exists (select from qml.job j where j.id = u.id) and not exists (select from qml.done d where d.id = u.id)),
       most);
  end if;
  with new as (
    insert into qml.job (id, queue, method, priority, max_retries, timeout, job_type, created_ts, state, run_ts, args, kwargs, metadata)
    select u.id, coalesce(u.queue, queues[1]), coalesce(u.method, methods[1]), coalesce(u.priority, priorities[1]),
           coalesce(u.retry, retries[1]), u.timeout, u.type, u.created, coalesce(u.state, states[1]), u.run,
           coalesce(u.arg, args[1]), coalesce(u.kwarg, kwargs[1]), coalesce(u.meta, metadata[1])
      from unnest(ids, queues, methods, priorities, retries, timeouts, types, created, states, runs, args, kwargs, metadata)
           u(id, queue, method, priority, retry, timeout, type, created, state, run, arg, kwarg, meta)
     order by u.id
    on conflict (id) do nothing
    returning id, queue, state
  ), groups as (
    select n.queue, n.state, count(*) as jobs from new n group by n.queue, n.state
  ), counted as (
    insert into qml.count (queue, state, jobs) select g.queue, g.state, g.jobs from groups g
  ) select (select array_agg(n.id) from new n), count(qml.wake(g.queue, g.jobs)) filter (where g.state = 0)
      into stored, woken from groups g;
  -- Looked at after the insert, which may have waited for a transaction that moved the job to the finished ones.
  old := array(select d.id from qml.done d where d.id = any(stored));
  if cardinality(old) > 0 then
    with gone as (
      delete from qml.job j where j.id = any(old) returning j.queue, j.state
    ) insert into qml.count (queue, state, jobs) select g.queue, g.state, -count(*) from gone g group by g.queue, g.state;
    stored := array(select s from unnest(stored) s where s <> all(old));
  end if;
  return case when coalesce(cardinality(stored), 0) < cardinality(ids) then coalesce(stored, '{}') end;
end $$;
