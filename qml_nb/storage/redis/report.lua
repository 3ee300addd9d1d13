-- Keep how far jobs are. Answers a digit for each: 0 the claim is no longer held.
-- id, claim, progress for each
local answers, held, progress = {}, {}, {}
for i = 1, #ARGV / 3 do
  local id = ARGV[3 * i - 2]
  local raw, state, claim, _ = call('HGET', HEADS, id), nil, nil, nil
  if raw then state, _, claim = struct.unpack('>BI4d', raw) end
  answers[i] = '0'
  if state == PROCESSING and claim == tonumber(ARGV[3 * i - 1]) then
    answers[i] = '1'
    held[#held + 1] = id
    progress[#progress + 1], progress[#progress + 2] = id, ARGV[3 * i]
  end
end
if #held > 0 then
  use('progress', '1')
  many('HSET', T .. 'progress', progress, 2)
  if in_use('watched') then tell(held) end
end
return table.concat(answers)
