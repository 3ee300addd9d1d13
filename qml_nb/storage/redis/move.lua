-- Move jobs by hand. Answers a digit for each: 1 moved; {stored, returning} if those that come back don't fit.
-- 1: now or ''; 2: to; 3: seconds that it is kept then, or ''; 4: max_jobs or ''; 5: max_finished_jobs or '';
-- 6: the states, as digits, that it may come from; then ids
local now, to, most, from = clock(ARGV[1]), tonumber(ARGV[2]), ARGV[4], ARGV[6]

-- Whether a finished job can't come back since its key is taken; if not, it takes it.
local taken = {}
local function is_barred(id)
  local packed = call('HGET', T .. 'keyed', id)
  local key, seconds = '', 0
  if packed then key, seconds = unpack_key(packed) end
  if seconds == seconds then return false end
  local by = taken[key] or holder(key, now)
  if not by then taken[key] = id end
  return by and by ~= id
end

local found, seen, returning = {}, {}, 0
for i = 7, #ARGV do
  local id = ARGV[i]
  local h = head_of(id)
  if h and string.find(from, h.state, 1, true) then
    local returns = ENDED[h.state] and not ENDED[to]
    if not (returns and in_use('keys') and is_barred(id)) then
      found[i] = h
      if returns and not seen[id] then returning = returning + 1 end
      seen[id] = true
    end
  end
end
if returning > 0 and most ~= '' then
  local stored = call('ZCARD', IDS) - finished()
  if stored + returning > tonumber(most) then return {stored, returning} end
end
for key, id in pairs(taken) do
  call('HSET', T .. 'keys', key, id)
  call('ZREM', T .. 'keys:until', key)
end
local answers, moved = {}, {}
for i = 7, #ARGV do
  local id, h = ARGV[i], found[i]
  answers[i - 6] = h and '1' or '0'
  if h and not moved[id] then
    moved[id] = true
    leave(id, h)
    h.state = to
    if ENDED[to] then h.finished, h.expires = now, expiry(now, ARGV[3])
    else
      h.attempt, h.run, h.worker, h.started, h.finished, h.expires = 0, now, '', NONE, NONE, NONE
      h.result, h.has_error, h.error = '', 0, ''
    end
    enter(id, h)
  end
end
bound_finished(ARGV[5])
finish()
return table.concat(answers)
