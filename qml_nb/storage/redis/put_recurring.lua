-- Store a recurring schedule, in place of one with the same id.
-- 1: id; 2: what Python packed; 3: when it fires next, or ''
put_schedule(ARGV[1], ARGV[2], ARGV[3])
return 1
