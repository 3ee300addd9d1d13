-- Note that a server lives. Answers 0 if it is not there.
-- 1: now or ''; 2: id
if call('HEXISTS', T .. 'servers', ARGV[2]) == 0 then return 0 end
call('ZADD', T .. 'servers:heard', exactly(clock(ARGV[1])), ARGV[2])
return 1
