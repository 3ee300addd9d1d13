-- Which jobs come out, and in which order. Used by what hands out jobs, or looks whether it would.

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

-- How many jobs each of the queues may hand out now; nil if none has a limit.
local function turns_left(queues, now)
  if not in_use('limits') then return end
  local left = {}
  for _, queue in ipairs(queues) do left[queue] = turns(queue, now) end
  return left
end

-- Walk over the waiting jobs of the queues in order: calls `take(id, queue)` until that returns true, and passes over
-- queues with no turns left.
local function in_order(queues, step, left, take)
  local lines = {}
  for _, queue in ipairs(queues) do
    if not left or left[queue] > 0 then
      local line = {queue = queue, jobs = waiting(queue, 0, step), at = 1, from = 0}
      if #line.jobs > 0 then lines[#lines + 1] = line end
    end
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
    if left and left[line.queue] < 1 then table.remove(lines, best)
    elseif line.at > #line.jobs then
      line.from, line.at = line.from + step, 1
      line.jobs = waiting(line.queue, line.from, step)
      if #line.jobs == 0 then table.remove(lines, best) end
    end
  end
end

-- Up to `limit` ids that the worker may have, in order, and the queue of each; their turns are taken out of `left`.
local function choose(queues, limit, worker, now, left)
  local ids, of = {}, {}
  local locks = call('EXISTS', T .. 'job_locks') == 1 and T .. 'job_locks'
  local step = #queues == 1 and limit or math.max(10, math.ceil(2 * limit / #queues))
  in_order(queues, math.min(step, CHUNK), left, function(id, queue)
    if not locks or not is_locked(locks, id, worker, now) then
      ids[#ids + 1], of[#of + 1] = id, queue
      if left then left[queue] = left[queue] - 1 end
    end
    return #ids >= limit
  end)
  return ids, of
end
