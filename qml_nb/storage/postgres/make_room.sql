-- Let one transaction at a time make room: else two could both fit alone.
create or replace function qml.lock_room() returns void language sql as $$
  select pg_advisory_xact_lock('qml.job'::regclass::oid::int, 2)
$$;

-- Raise unless so many more unfinished jobs fit.
create or replace function qml.make_room(coming bigint, most bigint) returns void language plpgsql as $$
declare stored bigint;
begin
  perform qml.lock_room();
  select coalesce(sum(c.jobs), 0) into stored from qml.count c where c.state < 4;
  if stored + coming > most then
    raise exception using errcode = 'QML01', message = 'full', detail = stored || ' ' || coming;
  end if;
end $$;
