-- Remove a server. Answers 0 if it was not there.
-- 1: id
for _, name in ipairs({'servers:started', 'servers:beat'}) do call('HDEL', T .. name, ARGV[1]) end
return call('HDEL', T .. 'servers', ARGV[1])
