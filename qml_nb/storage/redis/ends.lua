-- How jobs change places, and what that means to others. Used by all verbs that let a job end, or wake for a job.

-- Jobs that ended and jobs that are gone: keys, watchers and progress are seen to at the end of a script.
local ended, gone = {}, {}

local woken = {}
local function wake_later(queue) woken[queue] = (woken[queue] or 0) + 1 end

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
  elseif ENDED[h.state] then
    call('ZADD', ENDED[h.state], h.finished, id)
    ended[#ended + 1] = id
  else call('ZADD', DUE, h.run, id) end
end

local function remove(id, h)
  leave(id, h)
  call('HDEL', JOBS, id)
  call('HDEL', HEADS, id)
  call('ZREM', IDS, id)
  forget_lock(T .. 'job_locks', id)
  gone[#gone + 1] = id
end

-- Keep no more finished jobs than that; those that ended first go first.
local function bound_finished(most)
  if most == '' then return end
  for _ = 1, finished() - tonumber(most) do
    local oldest, at
    for _, key in pairs(ENDED) do
      local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
      if first[1] and (not at or tonumber(first[2]) < at) then oldest, at = first[1], tonumber(first[2]) end
    end
    remove(oldest, head_of(oldest))
  end
end

-- A unique key, and for how many seconds it is taken; NONE for as long as its job is unfinished.
local function unpack_key(packed)
  local seconds, from = struct.unpack('>d', packed)
  return string.sub(packed, from), seconds
end

-- The id of the job by which a unique key is taken, false if it is free.
local function holder(key, now)
  local id = call('HGET', T .. 'keys', key)
  local till = id and call('ZSCORE', T .. 'keys:until', key)
  return id and (not till or tonumber(till) > now) and id
end

local function forget_keys(keys)
  many('HDEL', T .. 'keys', keys)
  many('ZREM', T .. 'keys:until', keys)
end

-- Free the keys that these jobs hold, of those that have a time of their own only if it does not matter.
local function free_keys(ids, whatever_time)
  local free = {}
  for i, packed in ipairs(look_up('HMGET', T .. 'keyed', ids)) do
    if packed then
      local key, seconds = unpack_key(packed)
      if (whatever_time or seconds ~= seconds) and call('HGET', T .. 'keys', key) == ids[i] then free[#free + 1] = key end
    end
  end
  forget_keys(free)
end

-- Tell those who watch these jobs. Whoever may not publish has done no less of its work.
local ID = '%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x'
local function tell(ids)
  local now = clock('')
  for i, till in ipairs(look_up('ZMSCORE', T .. 'watched', ids)) do
    if till and tonumber(till) > now then
      redis.pcall('PUBLISH', in_use('watched'), string.format(ID, string.byte(ids[i], 1, 16)))
    end
  end
end

-- A job that leaves processing makes room for another one, where concurrency is bounded.
local function wake_for_room()
  for field, by in pairs(changes) do
    if by < 0 and string.sub(field, 1, 2) == PROCESSING .. ':' then
      local queue = string.sub(field, 3)
      local concurrency = limits_of(queue)
      if concurrency and concurrency > 0 and call('EXISTS', READY .. queue) == 1 then
        woken[queue] = (woken[queue] or 0) - by
      end
    end
  end
end

-- Write what was gathered, and let everyone know. `erased`: those that are gone leave their keys, too.
local function finish(erased)
  write_counts()
  if in_use('watched') then
    tell(ended)
    tell(gone)
    many('ZREM', T .. 'watched', gone)
  end
  if in_use('keys') then
    free_keys(ended)
    if erased then free_keys(gone, true) end
    many('HDEL', T .. 'keyed', gone)
  end
  if in_use('progress') then many('HDEL', T .. 'progress', gone) end
  if in_use('limits') then wake_for_room() end
  for queue, number in pairs(woken) do wake(queue, number) end
end
