-- Answers {what Python packed, started, beat, ...} of all servers.
local answer = {}
for _, id in ipairs(call('HKEYS', T .. 'servers')) do
  for _, name in ipairs({'servers', 'servers:started'}) do answer[#answer + 1] = call('HGET', T .. name, id) end
  answer[#answer + 1] = call('ZSCORE', T .. 'servers:beat', id)
end
return answer
