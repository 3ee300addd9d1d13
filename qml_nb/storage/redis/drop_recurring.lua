-- Remove a recurring schedule. Answers 0 if there was none.
-- 1: id
call('ZREM', T .. 'recurring:due', ARGV[1])
return call('HDEL', T .. 'recurring', ARGV[1])
