-- Look jobs up.
create or replace function qml.get(ids uuid[]) returns setof qml.done language plpgsql stable @pinned@ as $$
begin
  return query select j.*, null::float8, null::float8, null::json from qml.job j where j.id = any(ids)
               union all select d.* from qml.done d where d.id = any(ids);
end $$;
