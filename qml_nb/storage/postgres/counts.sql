-- Return how many jobs there are, by queue and state.
create or replace function qml.counts(out queue text, out state smallint, out jobs bigint) returns setof record
language sql stable as $$
  select c.queue, c.state, sum(c.jobs)::bigint from qml.count c group by c.queue, c.state having sum(c.jobs) <> 0
$$;
