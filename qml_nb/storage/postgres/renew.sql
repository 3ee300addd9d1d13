-- Let claims run on. Returns those that are still held.
create or replace function qml.renew(ids uuid[], claims bigint[], lease float8, at float8)
returns table (job_id uuid, held bigint) language plpgsql @pinned@ as $$
declare t float8 := qml.clock(at);
begin
  perform from qml.job j where j.id = any(ids) order by j.id for update;
  return query update qml.job j set lease_ts = t + lease from unnest(ids, claims) u(id, claim_id)
                where j.id = u.id and j.state = 1 and j.claim_id = u.claim_id returning j.id, j.claim_id;
end $$;
