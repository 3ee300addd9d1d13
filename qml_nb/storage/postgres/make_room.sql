-- Raise unless so many more unfinished jobs fit. One transaction at a time: else two could both fit alone.
create or replace function qml.make_room(coming bigint, most bigint) returns void language plpgsql as $$
declare stored bigint;
begin
  perform pg_advisory_xact_lock('qml.job'::regclass::oid::int, 2);
  select coalesce(sum(c.jobs), 0) into stored from qml.count c where c.state < 4;
  if stored + coming > most then
    raise exception using errcode = 'QML01', message = 'full', detail = stored || ' ' || coming;
  end if;
end $$;
