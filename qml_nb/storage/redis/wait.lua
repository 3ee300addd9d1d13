-- Say whether there is work; if not, park the waiter until a wake-up comes for it.
-- 1: waiter; 2: seconds; then queues
local waiter, till = ARGV[1], string.format('%.17g', clock('') + tonumber(ARGV[2]))
if #choose(open_queues(3), 1, nil, clock('')) > 0 then return 1 end
if tonumber(ARGV[2]) < 0.001 then return 0 end
for i = 3, #ARGV do call('ZADD', T .. 'waiting:' .. ARGV[i], till, waiter) end
if #ARGV == 2 then call('ZADD', T .. 'waiting', till, waiter) end
call('HSET', PARKED, waiter, table.concat({unpack(ARGV, 3)}, '\0'))
call('ZADD', T .. 'parked:until', till, waiter)
return 0
