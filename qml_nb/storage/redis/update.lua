-- Write other bodies. Answers a digit for each: 0 there is no such job, or not in that state.
-- 1: the state expected or ''; then id, body for each
local expected, answers = tonumber(ARGV[1]), {}
for i = 2, #ARGV, 2 do
  local id, body = ARGV[i], ARGV[i + 1]
  local h = head_of(id)
  local fits = h and (not expected or h.state == expected)
  answers[#answers + 1] = fits and '1' or '0'
  if fits then
    local priority, _, queue = struct.unpack(BODY, body)
    call('HSET', JOBS, id, body)
    if h.state == ENQUEUED then
      call('ZREM', READY .. h.queue, id)
      forget_if_empty(h.queue)
      call('ZADD', READY .. queue, -priority, id)
      call('SADD', QUEUES, queue)
      wake_later(queue)
    end
    count(h.state, h.queue, -1)
    count(h.state, queue, 1)
    h.queue = queue
    if call('HEXISTS', HEADS, id) == 1 then call('HSET', HEADS, id, pack_head(h)) end
  end
end
write_counts()
wake_all()
return table.concat(answers)
