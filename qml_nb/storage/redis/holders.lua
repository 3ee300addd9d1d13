-- Answers the id of the job by which each unique key is taken, '' if it is free.
-- 1: now or ''; then keys
local now, answer = clock(ARGV[1]), {}
for i = 2, #ARGV do answer[i - 1] = holder(ARGV[i], now) or '' end
return answer
