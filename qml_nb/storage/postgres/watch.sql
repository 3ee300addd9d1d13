-- Look jobs up, and tell for so many seconds what becomes of them. They are locked, so that none ends between the two unseen.
-- A claim that meets such a lock on a row that was just updated may wait for who has the newer version, though it skips what is
-- locked: PostgreSQL follows the versions without asking. If the two wait for each other, one is undone, and sent again.
create or replace function qml.watch(ids uuid[], seconds float8) returns setof qml.done language plpgsql @pinned@ as $$
begin
  perform set_config('synchronous_commit', 'off', true);  -- nothing is stored that a crash may not take
  perform from qml.job j where j.id = any(ids) order by j.id for key share;
  perform from qml.done d where d.id = any(ids) order by d.id for key share;
  insert into qml.watched as w (job_id, until)
  select g.id, qml.clock(null) + seconds from qml.get(ids) g order by g.id
  on conflict (job_id) do update set until = excluded.until where w.until < excluded.until;
  return query select * from qml.get(ids);
end $$;

-- Tell who watches one of these jobs, when this transaction commits, that something became of it.
create or replace function qml.tell(ids uuid[]) returns void language plpgsql as $$
begin
  if exists (select from qml.watched) then
    perform qml.publish('@watched@', convert_to(w.job_id::text, 'UTF8'))
       from qml.watched w where w.job_id = any(ids) and w.until > qml.clock(null);
  end if;
end $$;
