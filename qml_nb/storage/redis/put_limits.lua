-- Set what a queue may do, in place of what it was before.
-- 1: queue; 2: what Python packed, '' for no limits
local queue, limits = ARGV[1], T .. 'limits'
call('HDEL', T .. 'turns', queue)
call('HDEL', T .. 'alarms', queue)
if ARGV[2] == '' then call('HDEL', limits, queue) else call('HSET', limits, queue, ARGV[2]) end
local all, bounds = call('HVALS', limits), false
for _, raw in ipairs(all) do
  local _, _, _, most = struct.unpack(LIMITS, raw)
  bounds = bounds or most > 0
end
use('limits', #all > 0 and '1' or nil)
use('bounds', bounds and '1' or nil)
wake(queue, call('ZCARD', READY .. queue))
return 1
