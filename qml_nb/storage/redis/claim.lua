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
local answer, written, leases, claimed = {string.format('%.17g', now), base + 1}, {}, {}, {}
local till = string.format('%.17g', now + lease)

-- Most jobs are claimed for the first time: of their heads, all but the claim's number is made once a queue.
local FIRST_ATTEMPT, tails = struct.pack('>BI4', PROCESSING, 1), {}
local function first_claim(queue)
  local tail = tails[queue]
  if not tail then
    tail = struct.pack('>ddddI2c0I2c0I4c0B', NONE, now, NONE, NONE, #queue, queue, #worker, worker, 0, '', 0)
    tails[queue] = tail
  end
  return tail
end

for i, id in ipairs(ids) do
  local old, queue, head = heads[i] or '', of[i], nil
  if old == '' then
    head = FIRST_ATTEMPT .. struct.pack('>d', base + i) .. first_claim(queue)
  else
    local h = unpack_head(old)
    h.state, h.attempt, h.claim, h.started, h.worker = PROCESSING, h.attempt + 1, base + i, now, worker
    h.finished, h.expires = NONE, NONE
    head = pack_head(h)
  end
  written[2 * i - 1], written[2 * i] = id, head
  leases[2 * i - 1], leases[2 * i] = till, id
  answer[3 * i], answer[3 * i + 1], answer[3 * i + 2] = id, bodies[i], old
  claimed[queue] = (claimed[queue] or 0) + 1
end
recount(claimed, ENQUEUED, PROCESSING)
many('HSET', HEADS, written, 2)
many('ZADD', LEASES, leases, 2)
write_counts()
for _, queue in ipairs(queues) do
  if call('EXISTS', READY .. queue) == 0 then call('SREM', QUEUES, queue) else wake(queue, 1) end
end
return answer
