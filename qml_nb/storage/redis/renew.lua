-- Let claims run on. Answers a digit for each: 0 the claim is no longer held.
-- 1: now or ''; 2: lease; then id, claim for each
local till, jobs = exactly(clock(ARGV[1]) + tonumber(ARGV[2])), (#ARGV - 2) / 2
local ids, answers, leases = {}, {}, {}
for i = 1, jobs do ids[i] = ARGV[2 * i + 1] end
for i, raw in ipairs(look_up('HMGET', HEADS, ids)) do
  local state, _, claim = -1, 0, 0
  if raw then state, _, claim = struct.unpack('>BI4d', raw) end
  local held = state == PROCESSING and claim == tonumber(ARGV[2 * i + 2])
  answers[i] = held and '1' or '0'
  if held then leases[#leases + 1], leases[#leases + 2] = till, ids[i] end
end
many('ZADD', LEASES, leases, 2)
return table.concat(answers)
