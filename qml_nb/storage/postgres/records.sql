-- Servers, paused queues and messages.
create or replace function qml.put_server(key text, value bytea, at float8) returns void language sql as $$
  insert into qml.server (id, server, started_ts, heartbeat_ts)
  select key, value, t, t from qml.clock(at) t
  on conflict (id) do update
     set server = excluded.server, started_ts = excluded.started_ts, heartbeat_ts = excluded.heartbeat_ts
$$;

create or replace function qml.beat_server(key text, at float8) returns boolean language sql as $$
  with alive as (update qml.server s set heartbeat_ts = qml.clock(at) where s.id = key returning 1)
  select exists (select from alive)
$$;

create or replace function qml.drop_server(key text) returns boolean language sql as $$
  with gone as (delete from qml.server s where s.id = key returning 1) select exists (select from gone)
$$;

create or replace function qml.list_servers(out value bytea, out started float8, out beat float8) returns setof record
language sql stable as $$
  select s.server, s.started_ts, s.heartbeat_ts from qml.server s order by s.id collate "C"
$$;

create or replace function qml.pause(name text) returns boolean language sql as $$
  with new as (insert into qml.paused (queue) values (name) on conflict do nothing returning 1) select exists (select from new)
$$;

create or replace function qml.resume(name text) returns boolean language plpgsql as $$
begin
  delete from qml.paused p where p.queue = name;
  if not found then return false; end if;
  perform qml.wake(name, (select sum(c.jobs)::bigint from qml.count c where c.queue = name and c.state = 0));
  return true;
end $$;

create or replace function qml.paused() returns setof text language sql stable as $$
  select p.queue from qml.paused p order by p.queue collate "C"
$$;

-- Give a message to whoever listens; one that is too long for a notification lies in a table for a minute.
create or replace function qml.publish(channel text, body bytea) returns void language plpgsql as $$
declare head text := encode(convert_to(channel, 'UTF8'), 'base64') || ':'; number bigint;
begin
  head := replace(head, E'\n', '');
  if octet_length(head) + octet_length(body) * 2 < 7500 then
    perform pg_notify('@channel@', 'm' || nextval('qml.claim_ids') || ':' || head || encode(body, 'hex'));
  else
    insert into qml.message (message, sent_ts) values (body, extract(epoch from clock_timestamp())) returning id into number;
    perform pg_notify('@channel@', 'l' || nextval('qml.claim_ids') || ':' || head || number);
  end if;
end $$;

create or replace function qml.message(number bigint) returns bytea language sql stable as $$
  select m.message from qml.message m where m.id = number
$$;
