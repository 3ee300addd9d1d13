-- Return which of the wanted queues, in their order, or of all that hold waiting jobs, are not paused.
create or replace function qml.open_queues(wanted text[]) returns text[] language plpgsql stable @pinned@ as $$
begin
  if wanted is not null then
    return array(select w.name from unnest(wanted) with ordinality w(name, place)
                  where not exists (select from qml.paused p where p.queue = w.name) order by w.place);
  end if;
  -- From one queue's name to the next: the index is not read through.
  return array(
    with recursive waiting(name) as (
      (select j.queue from qml.job j where j.state = 0 order by j.queue limit 1)
      union all
      select (select j.queue from qml.job j where j.state = 0 and j.queue > w.name order by j.queue limit 1)
        from waiting w where w.name is not null
    )
    select w.name from waiting w
     where w.name is not null and not exists (select from qml.paused p where p.queue = w.name));
end $$;
