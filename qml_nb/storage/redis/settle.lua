-- Write what became of claims. Answers a digit for each: 1 written, 0 the claim is no longer held.
-- 1: now or ''; 2, 3: seconds that completed and failed jobs are kept, or ''; 4: max_finished_jobs or '';
-- 5: 1 if it is sent again; then id, claim, state, result or error, 1 if there is an error, delay for each
local now, jobs = clock(ARGV[1]), (#ARGV - 5) / 6
local expires = {[SUCCEEDED] = expiry(now, ARGV[2]), [FAILED] = expiry(now, ARGV[3])}
local again = ARGV[5] == '1'
local ids = {}
for i = 1, jobs do ids[i] = ARGV[6 * i] end
local raws = look_up('HMGET', HEADS, ids)
local answers, written, freed, ended, done = {}, {}, {}, {}, {}

local function end_well(i, h, result)
  h.state, h.finished, h.expires, h.result, h.has_error, h.error = SUCCEEDED, now, expires[SUCCEEDED], result, 0, ''
  written[#written + 1], written[#written + 2] = ids[i], pack_head(h)
  freed[#freed + 1] = ids[i]
  ended[#ended + 1], ended[#ended + 2] = now, ids[i]
  count(PROCESSING, h.queue, -1)
  count(SUCCEEDED, h.queue, 1)
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
  local h = raws[i] and not done[id] and unpack_head(raws[i])
  answers[i] = '0'
  if h and h.claim == claim then
    if h.state == PROCESSING then
      answers[i], done[id] = '1', true
      if to == SUCCEEDED then end_well(i, h, ARGV[at])
      else end_otherwise(id, h, to, ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])) end
    elseif again and h.state == to then answers[i] = '1' end
  end
end
many('HSET', HEADS, written, 2)
many('ZREM', LEASES, freed)
many('ZADD', ENDED[SUCCEEDED], ended, 2)
bound_finished(ARGV[4])
write_counts()
wake_all()
return table.concat(answers)
