-- Wake those who wait for the queue, when this transaction commits: so many, or, where turns may be missing, let them look. The
-- number makes each call a message of its own: PostgreSQL would send two that are equal only once.
create or replace function qml.wake(name text, jobs bigint) returns void language plpgsql as $$
declare kind text := 'w'; many bigint := jobs;
begin
  if jobs is null or jobs <= 0 then return; end if;
  if exists (select from qml.turn) then
    -- By a rate the next turn comes without a message: all must know when.
    select 't', case when l.rate is null then jobs else 1000000000 end into kind, many
      from qml.turn w join qml.limits l on l.queue = w.queue where w.queue = name;
  end if;
  perform pg_notify('@channel@', coalesce(kind, 'w') || nextval('qml.claim_ids') || ':' || coalesce(many, jobs) || ':'
                                 || case when octet_length(name) < 7000 then name else '' end);
end $$;

-- Wake those who wait for queues in which a job runs no longer, where another one may run for it. A queue is named once a job.
create or replace function qml.wake_for_turns(names text[]) returns void language plpgsql as $$
begin
  if names is null or not exists (select from qml.turn) then return; end if;
  perform qml.wake(l.queue, count(*)) from unnest(names) n(name) join qml.limits l on l.queue = n.name
    where l.concurrency is not null group by l.queue;
end $$;
