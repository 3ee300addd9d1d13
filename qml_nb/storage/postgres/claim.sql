-- Hand out jobs. Rows come in no order. In turn: all that the first of the wanted queues gives, then what the next one gives.
create or replace function qml.claim(worker text, wanted text[], most integer, lease float8, in_turn boolean, at float8)
returns setof qml.job language plpgsql @pinned@ as $$
declare
  t float8 := qml.clock(at);
  open text[] := qml.open_queues(wanted);
  held text[];
  turns integer[];
  ids uuid[] := '{}';
  firsts uuid[];
  won uuid[];
  last_priority integer;
  last_id uuid;
begin
  if exists (select from qml.turn) then
    held := array(select w.queue from qml.turn w where w.queue = any(open) order by w.queue for update);
    t := qml.clock(at);
    turns := qml.turns(open, held, t);  -- a statement of its own, which sees what was committed while the lock was waited for
  end if;
  -- Locked are what is handed out, and nothing else, or others would pass over it; and not the keys, so that a watch is in nobody's way.
  if in_turn or cardinality(open) = 1 then
    for place in 1 .. cardinality(open) loop
      ids := ids || array(select j.id from qml.job j
                           where j.queue = open[place] and j.state = 0
                             and (j.lock_owner is null or j.lock_owner = worker or j.lock_until <= t)
                           order by j.priority desc, j.id limit least(most - cardinality(ids), turns[place])
                           for no key update skip locked);
      exit when cardinality(ids) >= most;
    end loop;
  else
    -- What comes first over all queues, and where somebody is quicker, what comes next.
    loop
      select array_agg(f.id), min(f.priority), (array_agg(f.id order by f.priority, f.id desc))[1]
        into firsts, last_priority, last_id
        from (select q.id, q.priority from unnest(open, turns) o(name, turns) cross join lateral (
                select j.id, j.priority from qml.job j
                 where j.queue = o.name and j.state = 0
                   and (j.lock_owner is null or j.lock_owner = worker or j.lock_until <= t)
                   and (last_id is null or j.priority < last_priority or (j.priority = last_priority and j.id > last_id))
                 order by j.priority desc, j.id limit least(most - cardinality(ids), o.turns)) q
               order by q.priority desc, q.id limit most - cardinality(ids)) f;
      exit when firsts is null;
      won := array(select j.id from qml.job j
                    where j.id = any(firsts) and j.state = 0
                      and (j.lock_owner is null or j.lock_owner = worker or j.lock_until <= t)
                    for no key update skip locked);
      ids := ids || won;
      exit when cardinality(ids) >= most;
      if turns is not null then turns := qml.turns_left(open, turns, won); end if;
    end loop;
  end if;
  if cardinality(ids) = 0 then return; end if;
  if turns is not null then perform qml.use_turns(ids, held, t); end if;
  return query
    with claimed as (
      update qml.job j
         set state = 1, attempt = j.attempt + 1, worker_id = worker, lease_ts = t + lease, started_ts = t,
             claim_id = nextval('qml.claim_ids'), progress = null
       where j.id = any(ids) returning j.*
    ), counted as (
      insert into qml.count (queue, state, jobs)
      select c.queue, s.state, s.sign * count(*) from claimed c cross join (values (0, -1), (1, 1)) s(state, sign)
       group by c.queue, s.state, s.sign
    )
    select * from claimed;
end $$;
