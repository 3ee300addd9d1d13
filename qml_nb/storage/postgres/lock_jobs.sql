-- Lock the jobs that are there, as everybody does: live ones, then finished ones, by id. Returns which are which; to be touched are
-- only these. One that became live meanwhile would be locked out of order: then all is to be done again, from the beginning.
create or replace function qml.lock_jobs(ids uuid[], out live uuid[], out finished uuid[]) language plpgsql as $$
begin
  live := array(select j.id from qml.job j where j.id = any(ids) order by j.id for update);
  finished := array(select d.id from qml.done d where d.id = any(ids) order by d.id for update);
  if cardinality(live) + cardinality(finished) < cardinality(ids)
     and (select count(*) from qml.job j where j.id = any(ids)) > cardinality(live) then
    raise exception using errcode = 'serialization_failure', message = 'a job became live meanwhile';
  end if;
end $$;
