-- Recurring schedules. Each is due at an instant; null for one that is off, or fires no more.
create or replace function qml.put_recurring(key text, value bytea, due float8) returns void language sql as $$
  insert into qml.recurring (id, schedule, next_ts) values (key, value, due)
  on conflict (id) do update set schedule = excluded.schedule, next_ts = excluded.next_ts
$$;

create or replace function qml.drop_recurring(key text) returns boolean language sql as $$
  with gone as (delete from qml.recurring r where r.id = key returning 1) select exists (select from gone)
$$;

create or replace function qml.list_recurring() returns setof bytea language sql stable as $$
  select r.schedule from qml.recurring r order by r.id collate "C"
$$;

-- Return the time, and the schedules that are due, the earliest first.
create or replace function qml.due_recurring(most integer, at float8, out t float8, out schedules bytea[])
language plpgsql @pinned@ as $$
begin
  t := qml.clock(at);
  schedules := array(
    select r.schedule from qml.recurring r where r.next_ts <= t order by r.next_ts, r.id collate "C" limit most);
end $$;

-- Store a schedule in place of another one, null for none, and jobs as `push` does, full queues or not. False: the other one is not there.
create or replace function qml.swap_recurring(
  key text, old bytea, new bytea, due float8,
  texts text[], queues text[], methods text[], priorities integer[], retries integer[], timeouts float8[], types text[],
  created float8[], states smallint[], runs float8[], args text[], kwargs text[], metadata text[], extras text[],
  most bigint, at float8
) returns boolean language plpgsql @pinned@ as $$
begin
  if old is null then
    insert into qml.recurring (id, schedule, next_ts) values (key, new, due) on conflict (id) do nothing;
  else
    update qml.recurring r set schedule = new, next_ts = due where r.id = key and r.schedule = old;
  end if;
  if not found then return false; end if;
  if cardinality(texts) > 0 then
    perform qml.push(texts, queues, methods, priorities, retries, timeouts, types, created, states, runs, args, kwargs, metadata,
                     extras, most, null, at, null, null);
  end if;
  return true;
end $$;
