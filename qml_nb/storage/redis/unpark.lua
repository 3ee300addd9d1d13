-- Take a waiter away. Answers 1 if it was woken; if it can't use that any more, the next one gets its wake-up.
-- 1: waiter; 2: 1 if it can't use it; then the queues that it waited for
if unpark(ARGV[1]) then return 0 end
if ARGV[2] == '1' then
  for _, queue in ipairs(open_queues(3)) do
    if call('EXISTS', READY .. queue) == 1 then wake(queue, 1) end
  end
end
call('DEL', T .. 'wake:' .. ARGV[1])
return 1
