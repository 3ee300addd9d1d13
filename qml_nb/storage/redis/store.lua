-- How jobs come in. Used by the verbs that store new ones, after `ends`.

-- New jobs are gathered, and written once all of them are known to come in.
local bodies, aged, heads, due, ready, new, left_out = {}, {}, {}, {}, {}, 0, 0
local function add(id, body, run, priority, queue)
  new = new + 1
  bodies[2 * new - 1], bodies[2 * new], aged[2 * new - 1], aged[2 * new] = id, body, 0, id
  if run == '' then
    local line = ready[queue]
    if not line then line = {} ready[queue] = line end
    line[#line + 1], line[#line + 2] = -priority, id
  else
    local h = new_head(body)
    h.state, h.run = SCHEDULED, tonumber(run)
    heads[#heads + 1], heads[#heads + 2] = id, pack_head(h)
    due[#due + 1], due[#due + 2] = run, id
    count(SCHEDULED, queue, 1)
  end
end

local function write_new()
  many('HSET', JOBS, bodies, 2)
  many('ZADD', IDS, aged, 2)
  many('HSET', HEADS, heads, 2)
  many('ZADD', DUE, due, 2)
  for queue, line in pairs(ready) do
    many('ZADD', READY .. queue, line, 2)
    call('SADD', QUEUES, queue)
    count(ENQUEUED, queue, #line / 2)
    woken[queue] = #line / 2
  end
end

-- The unique keys that the new jobs take.
local taken, keys, keyed, timed, timeless = {}, {}, {}, {}, {}
local function is_taken(packed, id, now)
  local key = unpack_key(packed)
  local by = taken[key] or holder(key, now)
  return by and by ~= id
end

local function take_key(packed, id, now)
  local key, seconds = unpack_key(packed)
  taken[key] = id
  keys[#keys + 1], keys[#keys + 2], keyed[#keyed + 1], keyed[#keyed + 2] = key, id, id, packed
  if seconds == seconds then timed[#timed + 1], timed[#timed + 2] = exactly(now + seconds), key
  else timeless[#timeless + 1] = key end
end

local function write_keys()
  if #keys == 0 then return end
  use('keys', '1')
  many('HSET', T .. 'keys', keys, 2)
  many('HSET', T .. 'keyed', keyed, 2)
  many('ZREM', T .. 'keys:until', timeless)  -- of those before, whose time was over
  many('ZADD', T .. 'keys:until', timed, 2)
end

-- The bounds of the queues that jobs were offered to, in that order; by queue, false for one without a bound.
local bounds = {}
local function bound_of(queue)
  if bounds[queue] == nil then
    local _, _, _, most, when_full = limits_of(queue)
    local bound = most and most > 0 and
      {queue = queue, most = most, drops = when_full == DROP_OLDEST, room = most - call('ZCARD', READY .. queue), offered = 0}
    bounds[queue] = bound or false
    if bound then bounds[#bounds + 1] = bound end
  end
  return bounds[queue]
end

-- Whether one more job may come in: for now, unless those that find no room are left out one by one.
local function fits(queue, each)
  local bound = bound_of(queue)
  if not bound or bound.drops then return true end
  if each and bound.offered >= bound.room then return false end
  bound.offered = bound.offered + 1
  return true
end

-- Gather what ARGV has from `at` on: id, body, run_ts or '' for each; with a `step` of 4 also its unique key, packed, or
-- ''. Returns a digit for each: 1 it comes in, 0 that id is there or its key is taken, 2 it finds no room. `room` is
-- 'each' if these are left out, 'over' if there is always room.
local function gather(at, step, now, again, room)
  local ids, answers, seen = {}, {}, {}
  for place = at, #ARGV, step do ids[#ids + 1] = ARGV[place] end
  local there, bounded = look_up('HMGET', JOBS, ids), room ~= 'over' and in_use('bounds')
  for i, id in ipairs(ids) do
    local place = at + step * (i - 1)
    local body, run, key = ARGV[place + 1], step > 2 and ARGV[place + 2] or '', step > 3 and ARGV[place + 3] or ''
    local priority, _, queue = struct.unpack(BODY, body)
    if there[i] or seen[id] then
      -- Sent again after a lost answer: it is this very job that lies there.
      answers[i] = again and there[i] == body and '1' or '0'
    elseif key ~= '' and is_taken(key, id, now) then answers[i] = '0'
    elseif bounded and run == '' and not fits(queue, room == 'each') then
      answers[i], left_out = '2', left_out + 1
    else
      if key ~= '' then take_key(key, id, now) end
      answers[i], seen[id] = '1', true
      add(id, body, run, priority, queue)
    end
  end
  return answers
end

-- Write what was gathered; nothing, if not all of it fits: then {stored, bound}, or {queue, bound, offered}.
-- `most` jobs may be unfinished, `stored` are, and so many more are `coming` in the next calls.
local function store(most, stored, coming)
  local offered = new + left_out + coming
  if new + left_out > 0 and most and stored + offered > most then return {stored, offered} end
  for _, bound in ipairs(bounds) do
    if not bound.drops and bound.offered > math.max(bound.room, 0) then return {bound.queue, bound.most, bound.offered} end
  end
  write_new()
  write_keys()
end

-- Move the oldest waiting jobs of the lowest priority to deleted, where a queue holds more than it may and says so.
local function drop_oldest(now, ttl, most_finished, why)
  for _, bound in ipairs(bounds) do
    local surplus, line = bound.drops and call('ZCARD', READY .. bound.queue) - bound.most or 0, READY .. bound.queue
    while surplus > 0 do
      local lowest = call('ZRANGE', line, -1, -1, 'WITHSCORES')[2]
      local oldest = call('ZRANGEBYSCORE', line, lowest, lowest, 'LIMIT', 0, math.min(surplus, CHUNK))
      for _, id in ipairs(oldest) do
        local h = head_of(id)
        leave(id, h)
        h.state, h.finished, h.expires, h.has_error, h.error = DELETED, now, expiry(now, ttl), 1, why
        enter(id, h)
      end
      surplus = surplus - #oldest
    end
  end
  if #ended > 0 then bound_finished(most_finished) end
end
