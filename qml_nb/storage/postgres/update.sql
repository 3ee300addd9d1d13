-- Write what a caller may change. Returns the ids of those that were written.
create or replace function qml.update(
  ids uuid[], queues text[], methods text[], priorities integer[], retries integer[], timeouts float8[], types text[],
  args json[], kwargs json[], metadata json[], policies json[], expected smallint
) returns setof uuid language plpgsql @pinned@ as $$
declare live uuid[]; finished uuid[]; written uuid[]; kept uuid[]; ran text[];
begin
  select l.live, l.finished into live, finished from qml.lock_jobs(ids) l;
  with told as materialized (
    select * from unnest(ids, queues, methods, priorities, retries, timeouts, types, args, kwargs, metadata, policies)
                  u(id, queue, method, priority, retries, timeout, type, args, kwargs, metadata, policy)
  ), old as (
    select j.id, j.queue, j.state from qml.job j where j.id = any(live) and (expected is null or j.state = expected)
  ), changed as (
    update qml.job j set queue = u.queue, method = u.method, priority = u.priority, max_retries = u.retries, timeout = u.timeout,
           job_type = u.type, args = u.args, kwargs = u.kwargs, metadata = u.metadata, extras = qml.with_policy(j.extras, u.policy)
      from old join told u on u.id = old.id where j.id = old.id returning j.id, j.queue, j.state
  ), counted as (
    insert into qml.count (queue, state, jobs)
    select c.queue, c.state, sum(c.jobs)
      from (select queue, state, -1 as jobs from old union all select queue, state, 1 from changed) c group by c.queue, c.state
  ) select coalesce(array_agg(id), '{}'), (select array_agg(o.queue) from old o where o.state = 1) into written, ran from changed;
  perform qml.wake_for_turns(ran);
  perform qml.wake(j.queue, count(*)) from qml.job j where j.id = any(written) and j.state = 0 group by j.queue;
  with told as materialized (
    select * from unnest(ids, queues, methods, priorities, retries, timeouts, types, args, kwargs, metadata, policies)
                  u(id, queue, method, priority, retries, timeout, type, args, kwargs, metadata, policy)
  ), old as (
    select d.id, d.queue, d.state from qml.done d where d.id = any(finished) and (expected is null or d.state = expected)
  ), changed as (
    update qml.done d set queue = u.queue, method = u.method, priority = u.priority, max_retries = u.retries, timeout = u.timeout,
           job_type = u.type, args = u.args, kwargs = u.kwargs, metadata = u.metadata, extras = qml.with_policy(d.extras, u.policy)
      from old join told u on u.id = old.id where d.id = old.id returning d.id, d.queue, d.state
  ), counted as (
    insert into qml.count (queue, state, jobs)
    select c.queue, c.state, sum(c.jobs)
      from (select queue, state, -1 as jobs from old union all select queue, state, 1 from changed) c group by c.queue, c.state
  ) select coalesce(array_agg(id), '{}') into kept from changed;
  return query select w from unnest(written || kept) w;
end $$;

-- Return what few jobs have, with another way to be retried; the key stays.
create or replace function qml.with_policy(extras json, policy json) returns json language plpgsql as $$
begin
  if extras is null and policy is null then return null; end if;
  return nullif(jsonb_strip_nulls(coalesce(extras::jsonb, '{}') || jsonb_build_object('retry', policy)), '{}')::json;
end $$;
