-- Wake those who wait for the queue, when this transaction commits. The number makes each call a message of its own:
-- PostgreSQL would send two that are equal only once.
create or replace function qml.wake(queue text, jobs bigint) returns void language sql as $$
  select pg_notify('@channel@', 'w' || nextval('qml.claim_ids') || ':' || jobs || ':'
                                || case when octet_length(queue) < 7000 then queue else '' end)
   where jobs > 0
$$;
