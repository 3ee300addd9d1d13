-- Show what a claim would hand out. Answers {id, body, head or '', ...}.
-- 1: limit; then queues
local ids = choose(open_queues(2), tonumber(ARGV[1]), nil, clock(''))
local bodies, heads = look_up('HMGET', JOBS, ids), look_up('HMGET', HEADS, ids)
local answer = {}
for i, id in ipairs(ids) do
  answer[3 * i - 2], answer[3 * i - 1], answer[3 * i] = id, bodies[i], heads[i] or ''
end
return answer
