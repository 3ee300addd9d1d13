-- Return the ids of the jobs by which keys are taken, and the keys.
create or replace function qml.holders(keys text[], at float8, out held text, out holder uuid) returns setof record
language plpgsql @pinned@ as $$
declare t float8 := qml.clock(at);
begin
  return query select k.key, k.job_id from qml.unique_key k where k.key = any(keys) and (k.until is null or k.until > t);
end $$;

-- Let jobs take keys, each until an instant, or, null, while it is unfinished; of equal keys the first. Returns those that are taken.
-- A key that another job has is not locked: who ends that job may wait for this transaction's new ones.
create or replace function qml.take_keys(keys text[], ids uuid[], untils float8[], t float8) returns text[] language plpgsql as $$
declare taken text[];
begin
  delete from qml.unique_key k where k.key = any(array(
    select o.key from qml.unique_key o where o.key = any(keys) and o.until <= t order by o.key for update));
  with told as materialized (
    select distinct on (u.key) u.key, u.id, u.until from unnest(keys, ids, untils) with ordinality u(key, id, until, place)
     where u.key is not null order by u.key, u.place
  ), new as (
    insert into qml.unique_key (key, job_id, until) select u.key, u.id, u.until from told u order by u.key
    on conflict (key) do nothing returning key
  ), own as (  -- of a job that is gone, and comes again
    update qml.unique_key k set until = u.until from told u where k.key = u.key and k.job_id = u.id and k.until is not null
    returning k.key
  ) select array(select n.key from new n union all select o.key from own o) into taken;
  return taken;
end $$;

-- Free the keys of jobs that have ended, but those that are taken until an instant. Here and below the keys are looked up first, and
-- those rows then by their keys: joined, a table that was analysed while it was empty would be read through.
create or replace function qml.free_keys(ids uuid[]) returns void language plpgsql as $$
declare keys text[] := array(select d.extras ->> 'unique_key' from qml.done d where d.id = any(ids) and d.extras is not null);
begin
  delete from qml.unique_key k
   where k.key = any(keys) and k.until is null and k.job_id = any(ids)
     and exists (select from qml.done d where d.id = k.job_id and d.extras ->> 'unique_key' = k.key);
end $$;

-- Free the keys of jobs that are to be removed.
create or replace function qml.erase_keys(ids uuid[]) returns void language plpgsql as $$
declare keys text[] := array(
  select j.extras ->> 'unique_key' from qml.job j where j.id = any(ids) and j.extras is not null union all
  select d.extras ->> 'unique_key' from qml.done d where d.id = any(ids) and d.extras is not null);
begin
  delete from qml.unique_key k where k.key = any(array(
    select o.key from qml.unique_key o where o.key = any(keys) and o.job_id = any(ids) order by o.key for update));
end $$;

-- Free the keys that were taken for new jobs which were not stored after all: others with their ids came between.
create or replace function qml.give_back_keys(ids uuid[], extras text[], comes_in boolean[], stored uuid[]) returns void
language plpgsql as $$
declare keys text[] := array(
  select u.extra::json ->> 'unique_key' from unnest(ids, extras, comes_in) u(id, extra, comes_in)
   where u.comes_in and u.extra is not null and u.id <> all(stored));
begin
  if cardinality(keys) = 0 then return; end if;
  delete from qml.unique_key k
   where k.key = any(keys) and k.job_id = any(ids) and k.job_id <> all(stored)
     and not exists (select from qml.job j where j.id = k.job_id and j.extras ->> 'unique_key' = k.key)
     and not exists (select from qml.done d
                      where k.until is not null and d.id = k.job_id and d.extras ->> 'unique_key' = k.key);
end $$;
