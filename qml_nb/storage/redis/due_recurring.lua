-- Answers {now, what Python packed, ...} of the schedules that are due, the earliest first.
-- 1: now or ''; 2: limit
local now = exactly(clock(ARGV[1]))
local due = call('ZRANGEBYSCORE', T .. 'recurring:due', '-inf', now, 'LIMIT', 0, tonumber(ARGV[2]))
local answer = look_up('HMGET', T .. 'recurring', due)
table.insert(answer, 1, now)
return answer
