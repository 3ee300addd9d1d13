-- Answers {what Python packed, started, heard of last, ...} of all servers.
local answer, heard = {}, call('ZRANGE', T .. 'servers:heard', 0, -1, 'WITHSCORES')
for i = 1, #heard, 2 do
  for _, name in ipairs({'servers', 'servers:started'}) do answer[#answer + 1] = call('HGET', T .. name, heard[i]) end
  answer[#answer + 1] = heard[i + 1]
end
return answer
