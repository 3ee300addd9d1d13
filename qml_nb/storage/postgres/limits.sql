-- Set what a queue may do; without `full_way`, whatever it likes. All turns are free then.
create or replace function qml.put_limits(
  name text, running integer, pace float8, at_once integer, waiting integer, full_way text
) returns void language plpgsql @pinned@ as $$
begin
  delete from qml.limits l where l.queue = name and full_way is null;
  insert into qml.limits as l (queue, concurrency, rate, burst, max_waiting, when_full)
  select name, running, pace, at_once, waiting, full_way where full_way is not null
  on conflict (queue) do update
     set concurrency = excluded.concurrency, rate = excluded.rate, burst = excluded.burst,
         max_waiting = excluded.max_waiting, when_full = excluded.when_full;
  delete from qml.turn w where w.queue = name and running is null and pace is null;
  insert into qml.turn as w (queue, used_ts) select name, 0 where running is not null or pace is not null
  on conflict (queue) do update set used_ts = 0;
  perform qml.wake(name, (select sum(c.jobs)::bigint from qml.count c where c.queue = name and c.state = 0));
end $$;

create or replace function qml.limits() returns setof qml.limits language sql stable as $$
  select l.* from qml.limits l order by l.queue collate "C"
$$;
