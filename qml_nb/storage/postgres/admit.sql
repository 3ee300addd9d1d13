-- Say which of new jobs come in, by place: those whose id and key nobody has, nor one before them, and for which there is room.
-- With `each`, also the ids of those for which their queue has none; else that is an error. `bounded`: the queues where it counts.
create or replace function qml.admit(
  ids uuid[], queues text[], states smallint[], extras text[], bounded text[], each boolean, most bigint, t float8,
  out comes_in boolean[], out refused text[]
) language plpgsql as $$
declare
  new boolean[]; keys text[]; untils float8[]; rooms bigint[]; no_room boolean[];
  coming bigint; any_over boolean; any_key_over boolean;
begin
  select array_agg(c.new order by c.place), array_agg(c.key order by c.place), array_agg(c.until order by c.place)
    into new, keys, untils
    from (select u.place, u.extra ->> 'unique_key' as key, t + (u.extra ->> 'unique_for')::float8 as until,
                 j.id is null and d.id is null and row_number() over (partition by u.id order by u.place) = 1 as new
            from (select e.id, e.extra::json as extra, e.place
                    from unnest(ids, extras) with ordinality e(id, extra, place)) u
            left join qml.job j on j.id = u.id left join qml.done d on d.id = u.id) c;
  if cardinality(extras) > 0 then new := qml.with_keys(new, keys, ids, untils, t); end if;
  rooms := array(
    select case when l.when_full <> 'drop_oldest' then
             l.max_waiting - (select coalesce(sum(c.jobs), 0) from qml.count c where c.queue = l.queue and c.state = 0)::bigint
           end
      from unnest(bounded) with ordinality b(name, place) join qml.limits l on l.queue = b.name order by b.place);
  loop
    select array_agg(r.first and not r.over order by r.place), array_agg(r.over or r.no_room is true order by r.place),
           count(*) filter (where r.first), bool_or(r.over), bool_or(r.over and r.key is not null)
      into comes_in, no_room, coming, any_over, any_key_over
      from (select w.*, w.first and w.room is not null and
                   count(*) filter (where w.first) over (partition by w.queue, w.room is null order by w.place) > w.room as over
              from (select u.place, u.key, u.no_room, coalesce(u.queue, queues[1]) as queue,
                           case when coalesce(u.state, states[1]) = 0 then
                             rooms[array_position(bounded, coalesce(u.queue, queues[1]))]
                           end as room,
                           u.new and u.no_room is not true and (u.key is null or row_number() over (
                             partition by u.key, u.new and u.no_room is not true order by u.place) = 1) as first
                      from unnest(queues, states, keys, new, no_room) with ordinality u(queue, state, key, new, no_room, place)) w) r;
    if refused is null and most is not null and coming > 0 then perform qml.make_room(coming, most); end if;
    exit when not any_over;
    if not each then perform qml.refuse(queues, states, bounded, comes_in, no_room); end if;
    refused := array(select u.id::text from unnest(ids, no_room) u(id, no_room) where u.no_room);
    exit when not any_key_over;  -- else the next one with that key may come in
  end loop;
  if refused is not null and cardinality(extras) > 0 then
    delete from qml.unique_key k using unnest(ids, keys, no_room) u(id, key, no_room)
     where u.no_room and k.key = u.key and k.job_id = u.id;
    perform qml.with_keys(comes_in, keys, ids, untils, t);
  end if;
end $$;

-- Let new jobs take their keys, and return which of them are still new: those that have none, or have taken it.
create or replace function qml.with_keys(new boolean[], keys text[], ids uuid[], untils float8[], t float8) returns boolean[]
language plpgsql as $$
declare taken text[] := qml.take_keys(
  array(select case when u.new then u.key end from unnest(new, keys) with ordinality u(new, key, place) order by u.place),
  ids, untils, t);
begin
  return array(
    select u.new and (u.key is null or u.key in (select unnest(taken)))
      from unnest(new, keys) with ordinality u(new, key, place) order by u.place);
end $$;

-- Say of the first queue that is full that it is, and for how many jobs.
create or replace function qml.refuse(
  queues text[], states smallint[], bounded text[], comes_in boolean[], no_room boolean[]
) returns void language plpgsql as $$
declare full_one record;
begin
  select w.queue, l.max_waiting, w.offered into full_one
    from (select coalesce(u.queue, queues[1]) as queue, count(*) as offered, min(u.place) as place, bool_or(u.no_room) as is_full
            from unnest(queues, states, comes_in, no_room) with ordinality u(queue, state, comes_in, no_room, place)
           where (u.comes_in or u.no_room) and coalesce(u.state, states[1]) = 0 group by 1) w
    join qml.limits l on l.queue = w.queue
   where w.is_full order by w.place limit 1;
  raise exception using errcode = 'QML03', message = 'full',
    detail = full_one.max_waiting || ' ' || full_one.offered || ' ' || full_one.queue;
end $$;
