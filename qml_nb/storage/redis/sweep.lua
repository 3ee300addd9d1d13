-- Promote due jobs, reclaim lost leases, prune expired jobs, and forget what has run out: locks, keys, watches, waiters,
-- servers. Answers {promoted, reclaimed, failed, pruned}.
-- 1: now or ''; 2: limit; 3: seconds that failed jobs are kept, or ''; 4: max_finished_jobs or ''; 5: the error of a job
-- that lost leases end; 6: how often a job is handed out at the least; 7: seconds that a server may be unheard of
local now, limit, lost, tries = clock(ARGV[1]), tonumber(ARGV[2]), ARGV[5], tonumber(ARGV[6])
local function first(key, till) return call('ZRANGEBYSCORE', key, '-inf', exactly(till or now), 'LIMIT', 0, limit) end

local due = first(DUE)
for _, id in ipairs(due) do
  local h = head_of(id)
  leave(id, h)
  h.state = ENQUEUED
  enter(id, h)
end

local late, failed = first(LEASES), 0
for _, id in ipairs(late) do
  local h = head_of(id)
  local _, retries = struct.unpack('>i4I4', call('HGET', JOBS, id))
  leave(id, h)
  if h.attempt < math.max(retries + 1, tries) then h.state, h.worker = ENQUEUED, ''
  else
    failed = failed + 1
    h.state, h.finished, h.expires, h.has_error, h.error = FAILED, now, expiry(now, ARGV[3]), 1, lost
  end
  enter(id, h)
end
bound_finished(ARGV[4])

for _, locks in ipairs({T .. 'job_locks', T .. 'locks'}) do
  for _, name in ipairs(call('ZRANGEBYSCORE', locks .. ':until', '-inf', exactly(now))) do forget_lock(locks, name) end
end
for _, server in ipairs(first(T .. 'servers:heard', now - tonumber(ARGV[7]))) do
  for _, name in ipairs({'servers', 'servers:started'}) do call('HDEL', T .. name, server) end
  call('ZREM', T .. 'servers:heard', server)
end

local pruned = 0
for _, key in pairs(ENDED) do
  while pruned < limit do
    local id = call('ZRANGE', key, 0, 0)[1]
    local h = id and head_of(id)
    if not h or not (h.expires <= now) then break end
    remove(id, h)
    pruned = pruned + 1
  end
end

-- Waiters run by the storage's clock, whatever `now` is.
local waiters = call('ZRANGEBYSCORE', T .. 'parked:until', '-inf', exactly(clock('')))
for _, waiter in ipairs(waiters) do unpark(waiter) end
finish()
if in_use('watched') then call('ZREMRANGEBYSCORE', T .. 'watched', '-inf', exactly(now)) end
if in_use('keys') then forget_keys(first(T .. 'keys:until')) end
if in_use('keys') and call('EXISTS', T .. 'keys', T .. 'keyed') == 0 then use('keys') end
for _, feature in ipairs({'watched', 'progress'}) do
  if in_use(feature) and call('EXISTS', T .. feature) == 0 then use(feature) end
end
return {#due, #late - failed, failed, pruned}
