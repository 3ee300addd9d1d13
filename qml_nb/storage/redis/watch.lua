-- Show jobs, and tell for a while what becomes of them. Answers what `look_at` does.
-- 1: seconds; 2: the channel on which it is told; then ids
local ids = {}
for i = 3, #ARGV do ids[i - 2] = ARGV[i] end
local answer = look_at(ids)
local till, watched = exactly(clock('') + tonumber(ARGV[1])), {}
for i, id in ipairs(ids) do
  if answer[4 * i - 3] ~= '' then watched[#watched + 1], watched[#watched + 2] = till, id end
end
if #watched > 0 then
  use('watched', ARGV[2])
  many('ZADD', T .. 'watched', watched, 2, 'GT')  -- another one may watch it for longer
end
return answer
