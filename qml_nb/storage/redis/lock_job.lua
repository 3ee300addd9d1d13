-- Lock a job. Answers 1; 0 if its lock or its lease is somebody else's; -1 if there is no such job.
-- 1: now or ''; 2: id; 3: owner; 4: ttl
local now, id, owner, locks = clock(ARGV[1]), ARGV[2], ARGV[3], T .. 'job_locks'
local h = head_of(id)
if not h then return -1 end
if (h.state == PROCESSING and h.worker ~= owner) or is_locked(locks, id, nil, now) then return 0 end
call('HSET', locks, id, owner)
call('ZADD', locks .. ':until', exactly(now + tonumber(ARGV[4])), id)
return 1
