-- Hand out jobs. Rows come in no order.
create or replace function qml.claim(worker text, wanted text[], most integer, lease float8, at float8)
returns setof qml.job language plpgsql @pinned@ as $$
declare t float8 := qml.clock(at); open text[] := qml.open_queues(wanted); ids uuid[];
begin
  if cardinality(open) = 1 then
    ids := array(select j.id from qml.job j
                  where j.queue = open[1] and j.state = 0
                    and (j.lock_owner is null or j.lock_owner = worker or j.lock_until <= t)
                  order by j.priority desc, j.id limit most for update skip locked);
  else
    ids := array(select firsts.id from unnest(open) o(name) cross join lateral (
                   select j.id, j.priority from qml.job j
                    where j.queue = o.name and j.state = 0
                      and (j.lock_owner is null or j.lock_owner = worker or j.lock_until <= t)
                    order by j.priority desc, j.id limit most for update skip locked) firsts
                  order by firsts.priority desc, firsts.id limit most);
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
