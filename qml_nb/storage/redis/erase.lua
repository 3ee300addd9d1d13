-- Remove jobs in any state. Answers a digit for each: 0 no such job.
-- ids
local answers = {}
for i, id in ipairs(ARGV) do
  local h = head_of(id)
  answers[i] = h and '1' or '0'
  if h then remove(id, h) end
end
finish(true)
return table.concat(answers)
