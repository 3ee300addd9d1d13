-- Return a page of jobs, newest first, from below an id. Planned anew each time: which index is best depends on the filter.
create or replace function qml.find(
  in_state smallint, in_queue text, of_method text, below uuid, most integer
) returns setof qml.done language plpgsql stable set plan_cache_mode = force_custom_plan set jit = off as $$
begin
  return query
    select page.* from (
      (select j.*, null::float8, null::float8, null::json from qml.job j
        where (in_state is null or j.state = in_state) and (in_queue is null or j.queue = in_queue)
          and (of_method is null or j.method = of_method) and (below is null or j.id < below)
        order by j.id desc limit most)
      union all
      (select d.* from qml.done d
        where (in_state is null or d.state = in_state) and (in_queue is null or d.queue = in_queue)
          and (of_method is null or d.method = of_method) and (below is null or d.id < below)
        order by d.id desc limit most)
    ) page order by page.id desc limit most;
end $$;
