-- Remove jobs in any state. Returns the ids of those that were there.
create or replace function qml.erase(ids uuid[]) returns setof uuid language plpgsql @pinned@ as $$
declare live uuid[]; finished uuid[]; gone uuid[]; ran text[];
begin
  select l.live, l.finished into live, finished from qml.lock_jobs(ids) l;
  if exists (select from qml.unique_key) then perform qml.erase_keys(ids); end if;
  with gone as (
    delete from qml.job j where j.id = any(live) returning j.id, j.queue, j.state
  ), gone_too as (
    delete from qml.done d where d.id = any(finished) returning d.id, d.queue, d.state
  ), both_of_them as (
    select * from gone union all select * from gone_too
  ), counted as (
    insert into qml.count (queue, state, jobs) select queue, state, -count(*) from both_of_them group by queue, state
  ) select array_agg(b.id), array_agg(b.queue) filter (where b.state = 1) into gone, ran from both_of_them b;
  perform qml.tell(gone);
  perform qml.wake_for_turns(ran);
  return query select g from unnest(gone) g;
end $$;
