-- Release a job's lock. Answers 0 if the owner does not hold it.
-- 1: id; 2: owner
local id, locks = ARGV[1], T .. 'job_locks'
if call('HGET', locks, id) ~= ARGV[2] then return 0 end
forget_lock(locks, id)
local h = head_of(id)
if h and h.state == ENQUEUED then wake(h.queue, 1) end
return 1
