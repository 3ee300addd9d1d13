-- Show what a claim would hand out. Answers {id, body, head or '', progress or '', ...}.
-- 1: limit; then queues
local now, queues = clock(''), open_queues(2)
local ids = choose(queues, tonumber(ARGV[1]), nil, now, turns_left(queues, now))
local bodies, heads = look_up('HMGET', JOBS, ids), look_up('HMGET', HEADS, ids)
local progress = in_use('progress') and look_up('HMGET', T .. 'progress', ids) or {}
local answer = {}
for i, id in ipairs(ids) do
  answer[4 * i - 3], answer[4 * i - 2], answer[4 * i - 1], answer[4 * i] = id, bodies[i], heads[i] or '', progress[i] or ''
end
return answer
