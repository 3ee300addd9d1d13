-- Hand out waiting jobs, in order. Answers {now, first claim id, id, body, old head or '', ...}.
-- 1: now or ''; 2: worker; 3: limit; 4: lease; then queues
local now, worker, limit, lease = clock(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local queues = open_queues(5)
local ids, of = {}, {}
if #queues == 1 and call('EXISTS', T .. 'job_locks') == 0 then
  local popped = call('ZPOPMIN', READY .. queues[1], limit)
  for i = 1, #popped / 2 do ids[i], of[i] = popped[2 * i - 1], queues[1] end
else
  ids, of = choose(queues, limit, worker, now)
  local taken = {}
  for i, id in ipairs(ids) do
    taken[of[i]] = taken[of[i]] or {}
    table.insert(taken[of[i]], id)
  end
  for queue, line in pairs(taken) do many('ZREM', READY .. queue, line) end
end
if #ids == 0 then return {} end
local base = call('INCRBY', T .. 'claims', #ids) - #ids
local bodies, heads = look_up('HMGET', JOBS, ids), look_up('HMGET', HEADS, ids)
local answer, written, leases = {string.format('%.17g', now), base + 1}, {}, {}
local till = string.format('%.17g', now + lease)
for i, id in ipairs(ids) do
  local old = heads[i] or ''
  local attempt, run, result, failed, err = 0, NONE, '', 0, ''
  if old ~= '' then
    local h = unpack_head(old)
    attempt, run, result, failed, err = h.attempt, h.run, h.result, h.has_error, h.error
  end
  local queue = of[i]
  written[2 * i - 1], written[2 * i] = id, struct.pack(HEAD, PROCESSING, attempt + 1, base + i, run, now, NONE, NONE,
    #queue, queue, #worker, worker, #result, result, failed) .. err
  leases[2 * i - 1], leases[2 * i] = till, id
  answer[3 * i], answer[3 * i + 1], answer[3 * i + 2] = id, bodies[i], old
  count(ENQUEUED, queue, -1)
  count(PROCESSING, queue, 1)
end
many('HSET', HEADS, written, 2)
many('ZADD', LEASES, leases, 2)
write_counts()
for _, queue in ipairs(queues) do
  if call('EXISTS', READY .. queue) == 0 then call('SREM', QUEUES, queue) else wake(queue, 1) end
end
return answer
