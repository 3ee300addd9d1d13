-- Remove jobs in any state. Returns the ids of those that were there.
create or replace function qml.erase(ids uuid[]) returns setof uuid language plpgsql @pinned@ as $$
declare gone uuid[]; ran text[];
begin
  perform from qml.job j where j.id = any(ids) order by j.id for update;
  perform from qml.done d where d.id = any(ids) order by d.id for update;
  if exists (select from qml.unique_key) then perform qml.erase_keys(ids); end if;
  with gone as (
    delete from qml.job j where j.id = any(ids) returning j.id, j.queue, j.state
  ), gone_too as (
    delete from qml.done d where d.id = any(ids) returning d.id, d.queue, d.state
  ), both_of_them as (
    select * from gone union all select * from gone_too
  ), counted as (
    insert into qml.count (queue, state, jobs) select queue, state, -count(*) from both_of_them group by queue, state
  ) select array_agg(b.id), array_agg(b.queue) filter (where b.state = 1) into gone, ran from both_of_them b;
  perform qml.tell(gone);
  perform qml.wake_for_turns(ran);
  return query select g from unnest(gone) g;
end $$;
