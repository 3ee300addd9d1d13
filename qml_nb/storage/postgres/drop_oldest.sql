-- Move to deleted what is too much in those of the queues that drop their oldest: of the lowest priority, by id.
create or replace function qml.drop_oldest(bounded text[], t float8, ttl float8, why text) returns void language plpgsql as $$
declare excess record; lowest integer; picked uuid[]; ids uuid[] := '{}';
begin
  for excess in
    select l.queue, sum(c.jobs)::bigint - l.max_waiting as jobs from qml.limits l join qml.count c on c.queue = l.queue and c.state = 0
     where l.queue = any(bounded) and l.when_full = 'drop_oldest' group by l.queue
  loop
    lowest := null;
    while excess.jobs > 0 loop  -- one priority after the other: in each the index has the order
      lowest := (select j.priority from qml.job j
                          where j.queue = excess.queue and j.state = 0 and (lowest is null or j.priority > lowest)
                          order by j.priority limit 1);
      exit when lowest is null;
      picked := array(select j.id from qml.job j where j.queue = excess.queue and j.state = 0 and j.priority = lowest
                     order by j.id limit excess.jobs for update skip locked);
      ids := ids || picked;
      excess.jobs := excess.jobs - cardinality(picked);
    end loop;
  end loop;
  if cardinality(ids) = 0 then return; end if;
  ids := array(select m from qml.move(ids, 6::smallint, array[0]::smallint[], t, ttl, null) m);
  update qml.done d set error = why where d.id = any(ids);
end $$;
