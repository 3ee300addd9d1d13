-- Return what a claim would hand out, in order.
create or replace function qml.peek(wanted text[], most integer) returns setof qml.job language plpgsql stable @pinned@ as $$
declare t float8 := extract(epoch from clock_timestamp()); open text[] := qml.open_queues(wanted);
begin
  return query
    select firsts.* from unnest(open) o(name) cross join lateral (
      select j.* from qml.job j
       where j.queue = o.name and j.state = 0 and (j.lock_owner is null or j.lock_until <= t)
       order by j.priority desc, j.id limit most) firsts
     order by firsts.priority desc, firsts.id limit most;
end $$;

-- Whether there is something to claim.
create or replace function qml.has_work(wanted text[]) returns boolean language plpgsql stable @pinned@ as $$
begin
  return exists (select from qml.peek(wanted, 1));
end $$;
