-- How jobs are shown. Used by the verbs that look them up by id.

-- Body, head or '', lease or '', progress or '' for each id; an empty body: no such job.
local function look_at(ids)
  local bodies, heads, leases = look_up('HMGET', JOBS, ids), look_up('HMGET', HEADS, ids), look_up('ZMSCORE', LEASES, ids)
  local progress = in_use('progress') and look_up('HMGET', T .. 'progress', ids) or {}
  local answer = {}
  for i = 1, #ids do
    answer[4 * i - 3], answer[4 * i - 2] = bodies[i] or '', heads[i] or ''
    answer[4 * i - 1], answer[4 * i] = leases[i] or '', progress[i] or ''
  end
  return answer
end
