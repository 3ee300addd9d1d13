-- Remove a server. Answers 0 if it was not there.
-- 1: id
call('HDEL', T .. 'servers:started', ARGV[1])
call('ZREM', T .. 'servers:heard', ARGV[1])
return call('HDEL', T .. 'servers', ARGV[1])
