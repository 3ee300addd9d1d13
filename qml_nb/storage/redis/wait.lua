-- Look whether there is work; if not, park the waiter until a wake-up comes for it. Answers 1: there is; 0: there is none,
-- or, as text, the seconds until the next turn of a queue whose jobs wait for its rate alone.
-- 1: waiter; 2: seconds; 3: 1 if it is parked and looks again, by itself: it is woken then, and not parked anew if it was
-- woken meanwhile; then queues
local now, waiter, seconds, looks_again, queues = clock(''), ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', open_queues(4)
local is_over, till = seconds < 0.001, exactly(now + seconds)
if looks_again and (is_over or not unpark(waiter)) then return 0 end
if not looks_again then unpark(waiter) end
if #choose(queues, 1, nil, now, turns_left(queues, now)) > 0 then
  if looks_again then ring(waiter, '1') end
  return 1
end
if is_over then return 0 end
for i = 4, #ARGV do call('ZADD', T .. 'waiting:' .. ARGV[i], till, waiter) end
if #ARGV == 3 then call('ZADD', T .. 'waiting', till, waiter) end
call('HSET', PARKED, waiter, table.concat({unpack(ARGV, 4)}, '\0'))
call('ZADD', T .. 'parked:until', till, waiter)
if not in_use('limits') then return 0 end

local soonest
for _, queue in ipairs(queues) do
  if call('EXISTS', READY .. queue) == 1 then
    local _, next_turn = turns(queue, now)
    if next_turn then
      call('HSET', T .. 'alarms', queue, waiter)
      soonest = math.min(soonest or next_turn, next_turn)
    end
  end
end
return soonest and exactly(math.max(soonest - now, 0)) or 0
