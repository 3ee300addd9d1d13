-- What every verb starts with: it is put before each of the other files.
--
-- KEYS[1] is the storage's hash tag with a colon, as in '{qml}:', so that all of its keys lie in one cluster slot. No key
-- of that very name exists; with KEYS[2] it keeps a script from running while the slot moves to another node (`Link`).
--   jobs            HASH  id → body: priority, retries, queue, method, then what Python packed; never rewritten by a move
--   heads           HASH  id → head: what moves change; a job that was never claimed nor scheduled has none
--   ids             ZSET  all ids with score 0, to page by age
--   queues          SET   the queues with waiting jobs
--   enqueued:QUEUE  ZSET  id → -priority; equal ones lie in the order of ids, which is that of age
--   due             ZSET  id → run_ts of scheduled jobs, and of those that await a retry
--   leases          ZSET  id → the end of the lease
--   ended:STATE     ZSET  id → finished_ts
--   counts          HASH  'STATE:QUEUE' → jobs
--   paused          SET   queues
--   job_locks, locks             HASH  id or name → owner
--   job_locks:until, locks:until ZSET  id or name → the end of the lock
--   parked          HASH  waiter → the queues that it waits for, joined by NUL; parked:until  ZSET  waiter → until
--   waiting, waiting:QUEUE       ZSET  waiter → until: those that wait for all queues, and for that one
--   servers, servers:started, servers:beat, recurring, claims
--   wake:WAITER     LIST  one element, for BLPOP
local call, T = redis.call, KEYS[1]
local JOBS, HEADS, IDS, QUEUES, DUE, LEASES = T .. 'jobs', T .. 'heads', T .. 'ids', T .. 'queues', T .. 'due', T .. 'leases'
local COUNTS, PAUSED, PARKED, READY = T .. 'counts', T .. 'paused', T .. 'parked', T .. 'enqueued:'
local ENQUEUED, PROCESSING, SCHEDULED, AWAITING_RETRY, SUCCEEDED, FAILED, DELETED = 0, 1, 2, 3, 4, 5, 6
local ENDED = {[SUCCEEDED] = T .. 'ended:4', [FAILED] = T .. 'ended:5', [DELETED] = T .. 'ended:6'}
local NONE = 0 / 0
local CHUNK = 1000  -- Lua unpacks some 8,000 values at most
local BODY, HEAD = '>i4I4I2c0', '>BI4dddddI2c0I2c0I4c0B'
local FINISHED_AT, QUEUE_AT = 30, 46  -- where these lie in a head

local function clock(now)
  if now ~= '' then return tonumber(now) end
  local time = call('TIME')
  return time[1] + time[2] / 1000000
end

local function expiry(now, ttl)
  return ttl == '' and NONE or now + tonumber(ttl)
end

-- Call a command with many arguments, in pieces of whole groups, and add up what it answers.
local function many(command, key, arguments, group, option)
  local step, sum = CHUNK * (group or 1), 0
  for first = 1, #arguments, step do
    local last = math.min(first + step - 1, #arguments)
    if option then sum = sum + call(command, key, option, unpack(arguments, first, last))
    else sum = sum + call(command, key, unpack(arguments, first, last)) end
  end
  return sum
end

local function look_up(command, key, ids)
  if #ids <= CHUNK then return #ids == 0 and {} or call(command, key, unpack(ids)) end
  local found = {}
  for first = 1, #ids, CHUNK do
    local piece = call(command, key, unpack(ids, first, math.min(first + CHUNK - 1, #ids)))
    for i = 1, #piece do found[first + i - 1] = piece[i] end
  end
  return found
end

local function unpack_head(raw)
  local h = {}
  local from
  h.state, h.attempt, h.claim, h.run, h.started, h.finished, h.expires, h.queue, h.worker, h.result, h.has_error, from =
    struct.unpack(HEAD, raw)
  h.error = string.sub(raw, from)
  return h
end

local function pack_head(h)
  return struct.pack(HEAD, h.state, h.attempt, h.claim, h.run, h.started, h.finished, h.expires,
    #h.queue, h.queue, #h.worker, h.worker, #h.result, h.result, h.has_error) .. h.error
end

local function new_head(body)
  local _, _, queue = struct.unpack(BODY, body)
  return {state = ENQUEUED, attempt = 0, claim = 0, run = NONE, started = NONE, finished = NONE, expires = NONE,
    queue = queue, worker = '', result = '', has_error = 0, error = ''}
end

-- The head of a job as a table, nil if there is no such job.
local function head_of(id)
  local raw = call('HGET', HEADS, id)
  if raw then return unpack_head(raw) end
  local body = call('HGET', JOBS, id)
  return body and new_head(body)
end

-- Counts are gathered, and written once at the end of a script.
local changes = {}
local function count(state, queue, by)
  local field = state .. ':' .. queue
  changes[field] = (changes[field] or 0) + by
end

-- Count jobs that went from one state to another, given by queue.
local function recount(numbers, from, to)
  for queue, number in pairs(numbers) do
    count(from, queue, -number)
    count(to, queue, number)
  end
end

local function write_counts()
  for field, by in pairs(changes) do
    if by ~= 0 and call('HINCRBY', COUNTS, field, by) == 0 then call('HDEL', COUNTS, field) end
  end
end

local function unpark(waiter)
  local queues = call('HGET', PARKED, waiter)
  if not queues then return false end
  call('HDEL', PARKED, waiter)
  call('ZREM', T .. 'parked:until', waiter)
  if queues == '' then call('ZREM', T .. 'waiting', waiter) end
  for queue in string.gmatch(queues, '%Z+') do call('ZREM', T .. 'waiting:' .. queue, waiter) end
  return true
end

-- Wake so many of those that wait for the queue, each for itself: nobody else is disturbed.
local function wake(queue, number)
  if call('EXISTS', PARKED) == 0 or call('SISMEMBER', PAUSED, queue) == 1 then return end
  for _, key in ipairs({T .. 'waiting:' .. queue, T .. 'waiting'}) do
    while number > 0 do
      local first = call('ZPOPMIN', key)
      if #first == 0 then break end
      if unpark(first[1]) then
        call('RPUSH', T .. 'wake:' .. first[1], queue)
        call('PEXPIRE', T .. 'wake:' .. first[1], 60000)
        number = number - 1
      end
    end
  end
end

local woken = {}
local function wake_later(queue) woken[queue] = (woken[queue] or 0) + 1 end
local function wake_all()
  for queue, number in pairs(woken) do wake(queue, number) end
end

local function forget_if_empty(queue)
  if call('EXISTS', READY .. queue) == 0 then call('SREM', QUEUES, queue) end
end

-- Take a job out of the place that its state gave it.
local function leave(id, h)
  count(h.state, h.queue, -1)
  if h.state == ENQUEUED then
    call('ZREM', READY .. h.queue, id)
    forget_if_empty(h.queue)
  elseif h.state == PROCESSING then call('ZREM', LEASES, id)
  elseif ENDED[h.state] then call('ZREM', ENDED[h.state], id)
  else call('ZREM', DUE, id) end
end

-- Put a job where its state belongs, and write its head.
local function enter(id, h)
  count(h.state, h.queue, 1)
  call('HSET', HEADS, id, pack_head(h))
  if h.state == ENQUEUED then
    call('ZADD', READY .. h.queue, -struct.unpack('>i4', call('HGET', JOBS, id)), id)
    call('SADD', QUEUES, h.queue)
    wake_later(h.queue)
  elseif ENDED[h.state] then call('ZADD', ENDED[h.state], h.finished, id)
  else call('ZADD', DUE, h.run, id) end
end

local function forget_lock(locks, name)
  call('HDEL', locks, name)
  call('ZREM', locks .. ':until', name)
end

local function remove(id, h)
  leave(id, h)
  call('HDEL', JOBS, id)
  call('HDEL', HEADS, id)
  call('ZREM', IDS, id)
  forget_lock(T .. 'job_locks', id)
end

-- Keep no more finished jobs than that; those that ended first go first.
local function bound_finished(most)
  if most == '' then return end
  local surplus = -tonumber(most)
  for _, key in pairs(ENDED) do surplus = surplus + call('ZCARD', key) end
  for _ = 1, surplus do
    local oldest, at
    for _, key in pairs(ENDED) do
      local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
      if first[1] and (not at or tonumber(first[2]) < at) then oldest, at = first[1], tonumber(first[2]) end
    end
    remove(oldest, head_of(oldest))
  end
end

local function unfinished()
  local number = call('ZCARD', IDS)
  for _, key in pairs(ENDED) do number = number - call('ZCARD', key) end
  return number
end

-- Whether a lock of others hinders the worker (nil: of anybody).
local function is_locked(locks, name, worker, now)
  local till = call('ZSCORE', locks .. ':until', name)
  return till and tonumber(till) > now and call('HGET', locks, name) ~= worker or false
end

-- The next waiting ids of one queue from a position on, as {id, score, id, score, ...}.
local function waiting(queue, from, limit)
  return call('ZRANGE', READY .. queue, from, from + limit - 1, 'WITHSCORES')
end

-- The open ones of the queues that ARGV names from `first` on; none named: of all.
local function open_queues(first)
  local named = {unpack(ARGV, first)}
  if #named == 0 then named = call('SMEMBERS', QUEUES) end
  if call('EXISTS', PAUSED) == 0 then return named end
  local open = {}
  for _, queue in ipairs(named) do
    if call('SISMEMBER', PAUSED, queue) == 0 then open[#open + 1] = queue end
  end
  return open
end

-- Walk over the waiting jobs of the queues in order: calls `take(id, queue)` until that returns true.
local function in_order(queues, step, take)
  local lines = {}
  for _, queue in ipairs(queues) do
    local line = {queue = queue, jobs = waiting(queue, 0, step), at = 1, from = 0}
    if #line.jobs > 0 then lines[#lines + 1] = line end
  end
  while #lines > 0 do
    local best = 1
    for i = 2, #lines do
      local a, b = lines[i], lines[best]
      local x, y = tonumber(a.jobs[a.at + 1]), tonumber(b.jobs[b.at + 1])
      if x < y or (x == y and a.jobs[a.at] < b.jobs[b.at]) then best = i end
    end
    local line = lines[best]
    if take(line.jobs[line.at], line.queue) then return end
    line.at = line.at + 2
    if line.at > #line.jobs then
      line.from, line.at = line.from + step, 1
      line.jobs = waiting(line.queue, line.from, step)
      if #line.jobs == 0 then table.remove(lines, best) end
    end
  end
end

-- Up to `limit` ids that the worker may have, in order, and the queue of each.
local function choose(queues, limit, worker, now)
  local ids, of = {}, {}
  local locks = call('EXISTS', T .. 'job_locks') == 1 and T .. 'job_locks'
  local step = #queues == 1 and limit or math.max(10, math.ceil(2 * limit / #queues))
  in_order(queues, math.min(step, CHUNK), function(id, queue)
    if not locks or not is_locked(locks, id, worker, now) then
      ids[#ids + 1], of[#of + 1] = id, queue
    end
    return #ids >= limit
  end)
  return ids, of
end
