-- Return the instant that a test gave, else the server's.
create or replace function qml.clock(at float8) returns float8 language sql volatile as $$
  select coalesce(at, extract(epoch from clock_timestamp())::float8)
$$;
