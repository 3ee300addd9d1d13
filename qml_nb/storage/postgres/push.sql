-- Store new jobs. Returns the ids of those that were stored, null for all of them; and of those that were refused, since their
-- queue is full. That is an error where `each` is false; null: full or not, they come in.
-- An array of one element is what all jobs have in common, an empty one is null for each. Text where a caller's connection,
-- which may be asked, could have a codec of its own.
create or replace function qml.push(
  texts text[], queues text[], methods text[], priorities integer[], retries integer[], timeouts float8[], types text[],
  created float8[], states smallint[], runs float8[], args text[], kwargs text[], metadata text[], extras text[],
  most bigint, each boolean, at float8, ttl float8, dropped text, out stored text[], out refused text[]
) language plpgsql @pinned@ as $$
declare ids uuid[] := texts::uuid[]; bounded text[]; comes_in boolean[]; new uuid[]; woken bigint;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'QML02', message = 'unfit', detail = current_setting('transaction_isolation');
  end if;
  if most is not null then
    perform qml.lock_room();  -- so that the next statement sees what others have stored
  end if;
  if each is not null and exists (select from qml.limits l where l.max_waiting is not null) then
    bounded := array(
      select l.queue from qml.limits l where l.max_waiting is not null and l.queue = any(queues) order by l.queue for update);
  end if;
  if cardinality(extras) > 0 or cardinality(bounded) > 0 then
    select a.comes_in, a.refused into comes_in, refused
      from qml.admit(ids, queues, states, extras, bounded, each, most, qml.clock(at)) a;
  elsif most is not null then
    perform qml.make_room((select count(distinct u.id) from unnest(ids) u(id)
       where not exists (select from qml.job j where j.id = u.id) and not exists (select from qml.done d where d.id = u.id)),
       most);
  end if;
  with new as (
    insert into qml.job (id, queue, method, priority, max_retries, timeout, job_type, created_ts, state, run_ts, args, kwargs, metadata,
                         extras)
    select u.id, coalesce(u.queue, queues[1]), coalesce(u.method, methods[1]), coalesce(u.priority, priorities[1]),
           coalesce(u.retry, retries[1]), u.timeout, u.type, u.created, coalesce(u.state, states[1]), u.run,
           coalesce(u.arg, args[1])::json, coalesce(u.kwarg, kwargs[1])::json, coalesce(u.meta, metadata[1])::json, u.extra::json
      from unnest(ids, queues, methods, priorities, retries, timeouts, types, created, states, runs, args, kwargs, metadata, extras,
                  comes_in)
           with ordinality u(id, queue, method, priority, retry, timeout, type, created, state, run, arg, kwarg, meta, extra, comes_in, place)
     where u.comes_in is not false
     order by u.id, u.place  -- in the order in which everybody locks; of equal ids the first is stored
    on conflict (id) do nothing
    returning id, queue, state
  ), groups as (
    select n.queue, n.state, count(*) as jobs from new n group by n.queue, n.state
  ), counted as (
    insert into qml.count (queue, state, jobs) select g.queue, g.state, g.jobs from groups g
  ) select (select array_agg(n.id) from new n), count(qml.wake(g.queue, g.jobs)) filter (where g.state = 0)
      into new, woken from groups g;
  new := coalesce(qml.without_finished(new), '{}');
  if cardinality(extras) > 0 then perform qml.give_back_keys(ids, extras, comes_in, new); end if;
  if cardinality(bounded) > 0 then
    bounded := array(select distinct j.queue from qml.job j where j.id = any(new) and j.state = 0 and j.queue = any(bounded));
    perform qml.drop_oldest(bounded, qml.clock(at), ttl, dropped);
  end if;
  if cardinality(new) < cardinality(ids) then stored := new::text[]; end if;
end $$;
