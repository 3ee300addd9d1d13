-- Return how many jobs each of the queues may hand out at an instant; null where it has no bound, and for all if none has one.
-- With `held`, bounds are those of these queues only: to take turns of one whose row is not locked would be out of order.
-- A rate is kept as the instant up to which its turns are used.
create or replace function qml.turns(names text[], held text[], t float8) returns integer[] language plpgsql stable as $$
begin
  if not exists (select from qml.turn) then return null; end if;
  return array(
    select case when l.queue is not null and (held is null or n.name = any(held)) then
             greatest(least(l.concurrency - coalesce(r.jobs, 0), l.burst - ceil(greatest(w.used_ts - t, 0) * l.rate)), 0)::integer
           end
      from unnest(names) with ordinality n(name, place)
      left join (qml.turn w join qml.limits l on l.queue = w.queue) on w.queue = n.name
      left join (select c.queue, sum(c.jobs) as jobs from qml.count c where c.state = 1 group by c.queue) r on r.queue = l.queue
     order by n.place);
end $$;

-- Return the seconds until the rate of one of the queues leaves a turn to a job that waits; null: time alone leaves none.
-- Never quite nothing: where there is no turn yet, a look finds none.
create or replace function qml.next_turn(names text[], t float8) returns float8 language plpgsql stable as $$
begin
  return (
    select min(greatest(w.used_ts - (l.burst - 1) / l.rate - t, 0.001))
      from unnest(names) n(name) join qml.turn w on w.queue = n.name join qml.limits l on l.queue = w.queue
     where l.rate is not null
       and (l.concurrency is null
            or l.concurrency > (select coalesce(sum(c.jobs), 0) from qml.count c where c.queue = n.name and c.state = 1))
       and exists (select from qml.job j where j.queue = n.name and j.state = 0 and (j.lock_owner is null or j.lock_until <= t)));
end $$;

-- Return what is left of the turns of queues once these jobs are handed out.
create or replace function qml.turns_left(names text[], turns integer[], ids uuid[]) returns integer[] language plpgsql as $$
begin
  return array(
    select n.turns - (select count(*) from qml.job j where j.id = any(ids) and j.queue = n.name)::integer
      from unnest(names, turns) with ordinality n(name, turns, place) order by n.place);
end $$;

-- Note that these jobs are handed out, in queues whose rows are locked.
create or replace function qml.use_turns(ids uuid[], held text[], t float8) returns void language plpgsql as $$
begin
  update qml.turn w set used_ts = greatest(w.used_ts, t) + c.jobs / l.rate
    from (select j.queue, count(*) as jobs from qml.job j where j.id = any(ids) group by j.queue) c
    join qml.limits l on l.queue = c.queue
   where w.queue = c.queue and w.queue = any(held) and l.rate is not null;
end $$;
