-- Enter a server.
-- 1: now or ''; 2: id; 3: what Python packed
local now = string.format('%.17g', clock(ARGV[1]))
call('HSET', T .. 'servers', ARGV[2], ARGV[3])
call('HSET', T .. 'servers:started', ARGV[2], now)
call('HSET', T .. 'servers:beat', ARGV[2], now)
return 1
