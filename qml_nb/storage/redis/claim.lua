-- Hand out waiting jobs, in order. Answers {now, first claim id, id, body, old head or '', ...}.
-- 1: now or ''; 2: worker; 3: limit; 4: lease; 5: 1 if one queue comes after the other; then queues
local now, worker, limit, lease = clock(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local queues = open_queues(6)
local left = turns_left(queues, now)
local ids, of = {}, {}

local function take(id, queue) ids[#ids + 1], of[#of + 1] = id, queue end

local function take_from(some, most)
  local queue = some[1]
  if #some == 1 and call('EXISTS', T .. 'job_locks') == 0 then
    local popped = call('ZPOPMIN', READY .. queue, left and math.min(left[queue], most) or most)
    for i = 1, #popped, 2 do take(popped[i], queue) end
    return
  end
  local chosen, its_queue = choose(some, most, worker, now, left)
  local taken = {}
  for i, id in ipairs(chosen) do
    queue = its_queue[i]
    take(id, queue)
    taken[queue] = taken[queue] or {}
    table.insert(taken[queue], id)
  end
  for name, line in pairs(taken) do many('ZREM', READY .. name, line) end
end

if ARGV[5] == '1' then
  for _, queue in ipairs(queues) do
    if #ids < limit then take_from({queue}, limit - #ids) end
  end
else take_from(queues, limit) end
if #ids == 0 then return {} end
local base = call('INCRBY', T .. 'claims', #ids) - #ids
local bodies, heads = look_up('HMGET', JOBS, ids), look_up('HMGET', HEADS, ids)
local answer, written, leases, claimed = {exactly(now), base + 1}, {}, {}, {}
local till = exactly(now + lease)

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
if in_use('progress') then many('HDEL', T .. 'progress', ids) end
if left then
  for queue, number in pairs(claimed) do
    local _, rate = limits_of(queue)
    if rate and rate > 0 then
      call('HSET', T .. 'turns', queue, exactly(turns_used(queue, now) + number / rate))
    end
  end
end
write_counts()
for _, queue in ipairs(queues) do
  if call('EXISTS', READY .. queue) == 0 then call('SREM', QUEUES, queue) else wake(queue, 1) end
end
return answer
