-- Lock a job. Returns 1; 0 if its lock or its lease is somebody else's; -1 if there is no such job.
create or replace function qml.lock_job(job_id uuid, owner text, ttl float8, at float8) returns integer
language plpgsql @pinned@ as $$
declare t float8 := qml.clock(at);
begin
  update qml.job j set lock_owner = owner, lock_until = t + ttl
   where j.id = job_id and (j.state <> 1 or j.worker_id = owner) and (j.lock_until is null or j.lock_until <= t);
  if found then return 1; end if;
  update qml.done d set lock_owner = owner, lock_until = t + ttl
   where d.id = job_id and (d.lock_until is null or d.lock_until <= t);
  if found then return 1; end if;
  return case when exists (select from qml.get(array[job_id])) then 0 else -1 end;
end $$;

-- Release a job's lock. False: it is not the owner's.
create or replace function qml.unlock_job(job_id uuid, owner text) returns boolean language plpgsql @pinned@ as $$
declare freed record;
begin
  update qml.job j set lock_owner = null, lock_until = null where j.id = job_id and j.lock_owner = owner
  returning j.queue, j.state into freed;
  if found then
    if freed.state = 0 then perform qml.wake(freed.queue, 1); end if;
    return true;
  end if;
  update qml.done d set lock_owner = null, lock_until = null where d.id = job_id and d.lock_owner = owner;
  return found;
end $$;

-- Take a named lock, or let one's own run on.
create or replace function qml.lock(lock_name text, its_owner text, ttl float8, at float8) returns boolean
language plpgsql @pinned@ as $$
declare t float8 := qml.clock(at);
begin
  insert into qml.lock as l (name, owner, until) values (lock_name, its_owner, t + ttl)
  on conflict (name) do update set owner = excluded.owner, until = excluded.until
   where l.owner = excluded.owner or l.until <= t;
  return found;
end $$;

create or replace function qml.unlock(lock_name text, its_owner text) returns boolean language plpgsql @pinned@ as $$
begin
  delete from qml.lock l where l.name = lock_name and l.owner = its_owner;
  return found;
end $$;
