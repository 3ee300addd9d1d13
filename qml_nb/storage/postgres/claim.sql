-- Hand out jobs. Rows come in no order.
create or replace function qml.claim(worker text, wanted text[], most integer, lease float8, at float8)
returns setof qml.job language plpgsql @pinned@ as $$
declare
  t float8 := qml.clock(at);
  open text[] := qml.open_queues(wanted);
  ids uuid[] := '{}';
  firsts uuid[];
  last_priority integer;
  last_id uuid;
begin
  if cardinality(open) = 1 then
    ids := array(select j.id from qml.job j
                  where j.queue = open[1] and j.state = 0
                    and (j.lock_owner is null or j.lock_owner = worker or j.lock_until <= t)
                  order by j.priority desc, j.id limit most for update skip locked);
  else
    -- What comes first over all queues is locked, and nothing else, or others would pass over it. Where somebody is quicker, it is
    -- what comes next.
    loop
      select array_agg(f.id), min(f.priority), (array_agg(f.id order by f.priority, f.id desc))[1]
        into firsts, last_priority, last_id
        from (select q.id, q.priority from unnest(open) o(name) cross join lateral (
                select j.id, j.priority from qml.job j
                 where j.queue = o.name and j.state = 0
                   and (j.lock_owner is null or j.lock_owner = worker or j.lock_until <= t)
                   and (last_id is null or j.priority < last_priority or (j.priority = last_priority and j.id > last_id))
                 order by j.priority desc, j.id limit most - cardinality(ids)) q
               order by q.priority desc, q.id limit most - cardinality(ids)) f;
      exit when firsts is null;
      ids := ids || array(select j.id from qml.job j
                           where j.id = any(firsts) and j.state = 0
                             and (j.lock_owner is null or j.lock_owner = worker or j.lock_until <= t)
                           for update skip locked);
      exit when cardinality(ids) >= most;
    end loop;
  end if;
  if cardinality(ids) = 0 then return; end if;
  return query
    with claimed as (
      update qml.job j
         set state = 1, attempt = j.attempt + 1, worker_id = worker, lease_ts = t + lease, started_ts = t,
             claim_id = nextval('qml.claim_ids')
       where j.id = any(ids) returning j.*
    ), counted as (
      insert into qml.count (queue, state, jobs)
      select c.queue, s.state, s.sign * count(*) from claimed c cross join (values (0, -1), (1, 1)) s(state, sign)
       group by c.queue, s.state, s.sign
    )
    select * from claimed;
end $$;
