-- Count jobs that this transaction has copied into the live table: so many of each queue and state. Wakes who waits for them.
-- Returns the ids of those that are new; null for all of them.
create or replace function qml.enter(ids uuid[], queues text[], states smallint[], jobs bigint[]) returns uuid[]
language plpgsql @pinned@ as $$
declare fresh uuid[];
begin
  insert into qml.count (queue, state, jobs) select * from unnest(queues, states, jobs);
  perform qml.wake(g.queue, g.jobs) from unnest(queues, states, jobs) g(queue, state, jobs) where g.state = 0;
  fresh := qml.without_finished(ids);
  return case when cardinality(fresh) < cardinality(ids) then fresh end;
end $$;
