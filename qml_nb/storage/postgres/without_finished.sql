-- Take back jobs that were just stored, where one with that id is finished. Returns the ids of the others.
-- To be called after the insert, which may have waited for a transaction that moved the job to the finished ones.
create or replace function qml.without_finished(stored uuid[]) returns uuid[] language plpgsql @pinned@ as $$
declare old uuid[] := array(select d.id from qml.done d where d.id = any(stored));
begin
  if cardinality(old) = 0 then return stored; end if;
  with gone as (
    delete from qml.job j where j.id = any(old) returning j.queue, j.state
  ) insert into qml.count (queue, state, jobs) select g.queue, g.state, -count(*) from gone g group by g.queue, g.state;
  return array(select s from unnest(stored) s where s <> all(old));
end $$;
