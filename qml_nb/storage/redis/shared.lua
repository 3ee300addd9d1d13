-- What every verb starts with: it is put before each of the other files, and so are the parts that `Script` names.
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
--   wake:WAITER     LIST  one element, for BLPOP: the queue that has work, '' if the waiter is to look for itself
--   servers, servers:started     HASH  id → what Python packed, and when it started; servers:heard ZSET id → heartbeat
--   recurring       HASH  id → what Python packed; recurring:due  ZSET  id → next_ts of the enabled ones
--   claims          the number of the newest claim
--
-- What few storages use has its keys too, and a field in `options` while it is in use, so that one look tells of all:
--   options         HASH  'keys', 'limits', 'bounds' (some limits have a max_waiting), 'progress' → 1; 'watched' → channel
--   keys            HASH  unique key → the id by which it is taken; keys:until  ZSET  key → until, where it has a time
--   keyed           HASH  id → for how many seconds its key is taken, not a number for as long as it is unfinished; the key
--   limits          HASH  queue → concurrency, rate, burst, max_waiting (0: no bound), when_full
--   turns           HASH  queue → the instant up to which turns are used, where there is a rate
--   alarms          HASH  queue → the waiter that looks again at the instant of its next turn
--   progress        HASH  id → JSON
--   watched         ZSET  id → until
local call, T = redis.call, KEYS[1]
local JOBS, HEADS, IDS, QUEUES, DUE, LEASES = T .. 'jobs', T .. 'heads', T .. 'ids', T .. 'queues', T .. 'due', T .. 'leases'
local COUNTS, PAUSED, PARKED, READY = T .. 'counts', T .. 'paused', T .. 'parked', T .. 'enqueued:'
local ENQUEUED, PROCESSING, SCHEDULED, AWAITING_RETRY, SUCCEEDED, FAILED, DELETED = 0, 1, 2, 3, 4, 5, 6
local ENDED = {[SUCCEEDED] = T .. 'ended:4', [FAILED] = T .. 'ended:5', [DELETED] = T .. 'ended:6'}
local NONE = 0 / 0
local CHUNK = 1000  -- Lua unpacks some 8,000 values at most
local BODY, HEAD, LIMITS = '>i4I4I2c0', '>BI4dddddI2c0I2c0I4c0B', '>ddddB'
local FINISHED_AT, QUEUE_AT = 30, 46  -- where these lie in a head
local DROP_OLDEST = 2  -- as a `when_full`
local MOMENT = 0.000001  -- seconds; instants are kept no more exactly

local function clock(now)
  if now ~= '' then return tonumber(now) end
  local time = call('TIME')
  return time[1] + time[2] / 1000000
end

local function expiry(now, ttl)
  return ttl == '' and NONE or now + tonumber(ttl)
end

local function exactly(number) return string.format('%.17g', number) end

-- What `options` has on a feature; nothing if it is not in use.
local options
local function in_use(feature)
  if not options then
    options = {}
    local all = call('HGETALL', T .. 'options')
    for i = 1, #all, 2 do options[all[i]] = all[i + 1] end
  end
  return options[feature]
end

local function use(feature, what)
  if in_use(feature) ~= what then
    options[feature] = what
    if what then call('HSET', T .. 'options', feature, what) else call('HDEL', T .. 'options', feature) end
  end
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

local function finished()
  local number = 0
  for _, key in pairs(ENDED) do number = number + call('ZCARD', key) end
  return number
end

-- What a queue may do: its concurrency, rate, burst, max_waiting and when_full; nothing if that was not set.
local function limits_of(queue)
  local raw = in_use('limits') and call('HGET', T .. 'limits', queue)
  if raw then return struct.unpack(LIMITS, raw) end
end

local function turns_used(queue, now)
  return math.max(tonumber(call('HGET', T .. 'turns', queue) or now), now)
end

-- How many jobs a queue may hand out now; if none, also the instant of the next turn, if that is all it waits for.
local function turns(queue, now)
  local concurrency, rate, burst = limits_of(queue)
  local free = math.huge
  if concurrency and concurrency > 0 then
    free = math.max(concurrency - (tonumber(call('HGET', COUNTS, PROCESSING .. ':' .. queue) or 0)), 0)
  end
  if rate and rate > 0 and free > 0 then
    local used = turns_used(queue, now)
    local by_rate = math.min(math.floor(burst - (used - now - MOMENT) * rate), burst)
    if by_rate < 1 then return 0, used - (burst - 1) / rate end
    free = math.min(free, by_rate)
  end
  return free
end

local function unpark(waiter)
  local queues = call('HGET', PARKED, waiter)
  if not queues then return false end
  call('HDEL', PARKED, waiter)
  call('ZREM', T .. 'parked:until', waiter)
  if queues == '' then call('ZREM', T .. 'waiting', waiter) end
  for queue in string.gmatch(queues, '%Z+') do call('ZREM', T .. 'waiting:' .. queue, waiter) end
  local alarms = in_use('limits') and call('HGETALL', T .. 'alarms') or {}
  for i = 2, #alarms, 2 do
    if alarms[i] == waiter then call('HDEL', T .. 'alarms', alarms[i - 1]) end
  end
  return true
end

local function ring(waiter, queue)
  call('RPUSH', T .. 'wake:' .. waiter, queue)
  call('PEXPIRE', T .. 'wake:' .. waiter, 60000)
end

-- Wake so many of those that wait for the queue, each for itself: nobody else is disturbed.
local function wake(queue, number)
  if call('EXISTS', PARKED) == 0 or call('SISMEMBER', PAUSED, queue) == 1 then return end
  local message = queue
  if in_use('limits') then
    local free, next_turn = turns(queue, clock(''))
    number = math.min(number, free)
    if next_turn then  -- one is to look when that comes
      number, message = 1 - call('HEXISTS', T .. 'alarms', queue), ''
    end
  end
  for _, key in ipairs({T .. 'waiting:' .. queue, T .. 'waiting'}) do
    while number > 0 do
      local first = call('ZPOPMIN', key)
      if #first == 0 then break end
      if unpark(first[1]) then
        ring(first[1], message)
        number = number - 1
      end
    end
  end
end

local function forget_lock(locks, name)
  call('HDEL', locks, name)
  call('ZREM', locks .. ':until', name)
end

-- Whether a lock of others hinders the worker (nil: of anybody).
local function is_locked(locks, name, worker, now)
  local till = call('ZSCORE', locks .. ':until', name)
  return till and tonumber(till) > now and call('HGET', locks, name) ~= worker or false
end
