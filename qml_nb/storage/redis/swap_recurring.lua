-- Store a recurring schedule in place of what it was, and jobs. Answers 1; 0 if it is no longer what it was;
-- {stored, bound} if the jobs don't all fit.
-- 1: now or ''; 2: 1 if it is sent again; 3: id; 4: what it was, as Python packed it, '' for none; 5, 6: what it is to be,
-- and when it fires next, or ''; 7: max_jobs or ''; 8: how many arguments each job has; then these, as `gather` takes them
local again, id, most = ARGV[2] == '1', ARGV[3], tonumber(ARGV[7])
local there = call('HGET', T .. 'recurring', id) or ''
if there ~= ARGV[4] then return again and there == ARGV[5] and 1 or 0 end
gather(9, tonumber(ARGV[8]), clock(ARGV[1]), again, 'over')
local refusal = store(most, most and call('ZCARD', IDS) - finished(), 0)
if refusal then return refusal end
put_schedule(id, ARGV[5], ARGV[6])
finish()
return 1
