-- Take a waiter away. Answers 1 if it was woken; if it can't use that any more, the next one gets its wake-up. If it was
-- not woken, another one looks when the turn comes that it was to look for.
-- 1: waiter; 2: 1 if it can't use it; then the queues that it waited for
local was_parked = unpark(ARGV[1])
if was_parked and in_use('limits') or not was_parked and ARGV[2] == '1' then
  for _, queue in ipairs(open_queues(3)) do
    if call('EXISTS', READY .. queue) == 1 then wake(queue, 1) end
  end
end
if was_parked then return 0 end
call('DEL', T .. 'wake:' .. ARGV[1])
return 1
