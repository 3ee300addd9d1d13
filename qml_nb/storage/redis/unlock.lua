-- Release a named lock. Answers 0 if the owner does not hold it.
-- 1: name; 2: owner
local locks = T .. 'locks'
if call('HGET', locks, ARGV[1]) ~= ARGV[2] then return 0 end
forget_lock(locks, ARGV[1])
return 1
