-- Return what a claim would hand out, in order.
create or replace function qml.peek(wanted text[], most integer) returns setof qml.job language plpgsql stable @pinned@ as $$
declare t float8 := extract(epoch from clock_timestamp()); open text[] := qml.open_queues(wanted);
begin
  return query
    select firsts.* from unnest(open, qml.turns(open, null, t)) o(name, turns) cross join lateral (
      select j.* from qml.job j
       where j.queue = o.name and j.state = 0 and (j.lock_owner is null or j.lock_until <= t)
       order by j.priority desc, j.id limit least(most, o.turns)) firsts
     order by firsts.priority desc, firsts.id limit most;
end $$;

-- Return in how many seconds there is something to claim: 0 for now; null where time alone brings nothing.
create or replace function qml.has_work(wanted text[]) returns float8 language plpgsql stable @pinned@ as $$
begin
  if exists (select from qml.peek(wanted, 1)) then return 0; end if;
  if not exists (select from qml.turn) then return null; end if;
  return qml.next_turn(qml.open_queues(wanted), extract(epoch from clock_timestamp())::float8);
end $$;
