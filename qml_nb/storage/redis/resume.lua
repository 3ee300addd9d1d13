-- Hand out from a queue again. Answers 0 if it was not paused.
-- 1: queue
if call('SREM', PAUSED, ARGV[1]) == 0 then return 0 end
wake(ARGV[1], call('ZCARD', READY .. ARGV[1]))
return 1
