-- Enter a server.
-- 1: now or ''; 2: id; 3: what Python packed
local now = exactly(clock(ARGV[1]))
call('HSET', T .. 'servers', ARGV[2], ARGV[3])
call('HSET', T .. 'servers:started', ARGV[2], now)
call('ZADD', T .. 'servers:heard', now, ARGV[2])
return 1
