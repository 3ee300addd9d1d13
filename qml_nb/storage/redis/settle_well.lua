-- What `settle` does first: nearly all jobs come to a good end, and if that means nothing to anybody else, it is all there
-- is to do. The arguments are in settle.lua.
local now, jobs = clock(ARGV[1]), (#ARGV - 5) / 6
local expires = {[SUCCEEDED] = expiry(now, ARGV[2]), [FAILED] = expiry(now, ARGV[3])}
local again = ARGV[5] == '1'
local ids = {}
for i = 1, jobs do ids[i] = ARGV[6 * i] end
local raws = look_up('HMGET', HEADS, ids)
local SUCCEEDED_BYTE, answers, written, freed, since, done = string.char(SUCCEEDED), {}, {}, {}, {}, {}

-- Nearly all jobs come to this end: it goes over the head's bytes, without a table.
local ended_now, now_text, succeeded = struct.pack('>dd', now, expires[SUCCEEDED]), exactly(now), {}
local function end_well(id, raw, result)
  local queue, worker_at = struct.unpack('>I2c0', raw, QUEUE_AT)
  local _, result_at = struct.unpack('>I2c0', raw, worker_at)
  written[#written + 1] = id
  written[#written + 1] = SUCCEEDED_BYTE .. string.sub(raw, 2, FINISHED_AT - 1) .. ended_now
    .. string.sub(raw, QUEUE_AT, result_at - 1) .. struct.pack('>I4c0B', #result, result, 0)
  freed[#freed + 1] = id
  since[#since + 1], since[#since + 2] = now_text, id
  succeeded[queue] = (succeeded[queue] or 0) + 1
end

local others = {}
for i = 1, jobs do
  local id, claim, to = ids[i], tonumber(ARGV[6 * i + 1]), tonumber(ARGV[6 * i + 2])
  local raw, state, attempt, its_claim = raws[i], nil, nil, nil
  if raw and not done[id] then state, attempt, its_claim = struct.unpack('>BI4d', raw) end
  answers[i] = '0'
  if its_claim == claim then
    if state == PROCESSING then
      answers[i], done[id] = '1', true
      if to == SUCCEEDED then end_well(id, raw, ARGV[6 * i + 3])
      else others[#others + 1] = i end
    elseif again and state == to then answers[i] = '1' end
  end
end
recount(succeeded, PROCESSING, SUCCEEDED)
many('HSET', HEADS, written, 2)
many('ZREM', LEASES, freed)
many('ZADD', ENDED[SUCCEEDED], since, 2)
if #others == 0 and not (in_use('keys') or in_use('watched') or in_use('limits'))
  and (ARGV[4] == '' or finished() <= tonumber(ARGV[4])) then
  write_counts()
  return table.concat(answers)
end
