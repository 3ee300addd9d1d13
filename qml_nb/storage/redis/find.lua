-- Look for jobs from the newest on, among so many. Answers {the id to go on below or '', id, body, head, lease, progress, ...}.
-- 1: limit; 2: id to begin below, or ''; 3: state or ''; 4: queue or ''; 5: method or ''; 6: how many to look at
local limit, below, state, queue, method = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local ids = call('ZREVRANGEBYLEX', IDS, below == '' and '+' or '(' .. below, '-', 'LIMIT', 0, tonumber(ARGV[6]))
local bodies, heads = look_up('HMGET', JOBS, ids), look_up('HMGET', HEADS, ids)
local progress = in_use('progress') and look_up('HMGET', T .. 'progress', ids) or {}
local answer = {''}
for i, id in ipairs(ids) do
  local _, _, its_queue, its_method = struct.unpack(BODY .. 'I2c0', bodies[i])
  local its_state = heads[i] and string.byte(heads[i]) or ENQUEUED
  if (not state or state == its_state) and (queue == '' or queue == its_queue) and (method == '' or method == its_method) then
    local at = #answer
    answer[at + 1], answer[at + 2], answer[at + 3] = id, bodies[i], heads[i] or ''
    answer[at + 4], answer[at + 5] = call('ZSCORE', LEASES, id) or '', progress[i] or ''
    if #answer > 5 * limit then break end
  end
  if i == #ids and #ids == tonumber(ARGV[6]) then answer[1] = id end
end
return answer
