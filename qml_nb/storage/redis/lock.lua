-- Take a named lock, or let one's own run on. Answers 0 if somebody else holds it.
-- 1: now or ''; 2: name; 3: owner; 4: ttl
local now, name, owner, locks = clock(ARGV[1]), ARGV[2], ARGV[3], T .. 'locks'
if is_locked(locks, name, owner, now) then return 0 end
call('HSET', locks, name, owner)
call('ZADD', locks .. ':until', exactly(now + tonumber(ARGV[4])), name)
return 1
