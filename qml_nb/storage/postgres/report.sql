-- Keep how far claimed jobs are. Returns those that are still held.
create or replace function qml.report(ids uuid[], claims bigint[], said json[])
returns table (job_id uuid, held bigint) language plpgsql @pinned@ as $$
declare written uuid[]; numbers bigint[];
begin
  perform from qml.job j where j.id = any(ids) order by j.id for no key update;
  with kept as (
    update qml.job j set progress = u.said from unnest(ids, claims, said) u(id, claim_id, said)
     where j.id = u.id and j.state = 1 and j.claim_id = u.claim_id returning j.id, j.claim_id
  ) select array_agg(k.id), array_agg(k.claim_id) into written, numbers from kept k;
  perform qml.tell(written);
  return query select * from unnest(written, numbers);
end $$;
