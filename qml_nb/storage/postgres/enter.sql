-- Count jobs that this transaction has copied into the live table: so many of each queue and state. Wakes who waits for them.
-- Returns the ids of those that are new; null for all of them. An error where one of the queues has a bound: `push` keeps it.
create or replace function qml.enter(ids uuid[], queues text[], states smallint[], jobs bigint[]) returns uuid[]
language plpgsql @pinned@ as $$
declare fresh uuid[];
begin
  if exists (select from qml.limits l where l.max_waiting is not null)
     and exists (select from qml.limits l where l.max_waiting is not null and l.queue = any(queues)) then
    raise exception using errcode = 'QML04', message = 'bounded';
  end if;
  insert into qml.count (queue, state, jobs) select * from unnest(queues, states, jobs);
  perform qml.wake(g.queue, g.jobs) from unnest(queues, states, jobs) g(queue, state, jobs) where g.state = 0;
  fresh := qml.without_finished(ids);
  return case when cardinality(fresh) < cardinality(ids) then fresh end;
end $$;
