-- Note that a server lives. Answers 0 if it is not there.
-- 1: now or ''; 2: id
if call('HEXISTS', T .. 'servers', ARGV[2]) == 0 then return 0 end
call('HSET', T .. 'servers:beat', ARGV[2], string.format('%.17g', clock(ARGV[1])))
return 1
