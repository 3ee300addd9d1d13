-- Write what became of claims. Answers a digit for each: 1 written, 0 the claim is no longer held.
-- 1: now or ''; 2, 3: seconds that completed and failed jobs are kept, or ''; 4: max_finished_jobs or '';
-- 5: 1 if it is sent again; then id, claim, state, result or error, 1 if there is an error, delay for each
local now, jobs = clock(ARGV[1]), (#ARGV - 5) / 6
local expires = {[SUCCEEDED] = expiry(now, ARGV[2]), [FAILED] = expiry(now, ARGV[3])}
local again = ARGV[5] == '1'
local ids = {}
for i = 1, jobs do ids[i] = ARGV[6 * i] end
local raws = look_up('HMGET', HEADS, ids)
local SUCCEEDED_BYTE, answers, written, freed, ended, done = string.char(SUCCEEDED), {}, {}, {}, {}, {}

-- Nearly all jobs come to this end: it goes over the head's bytes, without a table.
local ended_now, now_text, succeeded = struct.pack('>dd', now, expires[SUCCEEDED]), string.format('%.17g', now), {}
local function end_well(id, raw, result)
  local queue, worker_at = struct.unpack('>I2c0', raw, QUEUE_AT)
  local _, result_at = struct.unpack('>I2c0', raw, worker_at)
  written[#written + 1] = id
  written[#written + 1] = SUCCEEDED_BYTE .. string.sub(raw, 2, FINISHED_AT - 1) .. ended_now
    .. string.sub(raw, QUEUE_AT, result_at - 1) .. struct.pack('>I4c0B', #result, result, 0)
  freed[#freed + 1] = id
  ended[#ended + 1], ended[#ended + 2] = now_text, id
  succeeded[queue] = (succeeded[queue] or 0) + 1
end

local function end_otherwise(id, h, to, text, failed, delay)
  leave(id, h)
  h.state = to
  if to == AWAITING_RETRY then h.run, h.worker, h.has_error, h.error = now + delay, '', failed, text
  elseif to == FAILED then h.finished, h.expires, h.has_error, h.error = now, expires[FAILED], failed, text
  else h.worker, h.started, h.attempt = '', NONE, h.attempt - 1 end
  enter(id, h)
end

for i = 1, jobs do
  local id, claim, to, at = ids[i], tonumber(ARGV[6 * i + 1]), tonumber(ARGV[6 * i + 2]), 6 * i + 3
  local raw, state, attempt, its_claim = raws[i], nil, nil, nil
  if raw and not done[id] then state, attempt, its_claim = struct.unpack('>BI4d', raw) end
  answers[i] = '0'
  if its_claim == claim then
    if state == PROCESSING then
      answers[i], done[id] = '1', true
      if to == SUCCEEDED then end_well(id, raw, ARGV[at])
      else end_otherwise(id, unpack_head(raw), to, ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])) end
    elseif again and state == to then answers[i] = '1' end
  end
end
recount(succeeded, PROCESSING, SUCCEEDED)
many('HSET', HEADS, written, 2)
many('ZREM', LEASES, freed)
many('ZADD', ENDED[SUCCEEDED], ended, 2)
bound_finished(ARGV[4])
write_counts()
wake_all()
return table.concat(answers)
