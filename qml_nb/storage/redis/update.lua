-- Write other bodies. Answers for each: 1 written, 0 there is no such job, or not in that state; 'k' and its unique key,
-- packed, if it has another than the one that the body has: then nothing is written.
-- 1: the state expected or ''; then id, body, its unique key, packed, or '' for each
local expected, answers = tonumber(ARGV[1]), {}
for i = 2, #ARGV, 3 do
  local id, body = ARGV[i], ARGV[i + 1]
  local h = head_of(id)
  local fits = h and (not expected or h.state == expected)
  local key = in_use('keys') and call('HGET', T .. 'keyed', id) or ''
  answers[#answers + 1] = not fits and '0' or key == ARGV[i + 2] and '1' or 'k' .. key
  if fits and key == ARGV[i + 2] then
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
finish()
return answers
