-- Answers body, head or '', lease or '' for each id; an empty body: no such job.
-- ids
local bodies, heads, leases = look_up('HMGET', JOBS, ARGV), look_up('HMGET', HEADS, ARGV), look_up('ZMSCORE', LEASES, ARGV)
local answer = {}
for i = 1, #ARGV do
  answer[3 * i - 2], answer[3 * i - 1], answer[3 * i] = bodies[i] or '', heads[i] or '', leases[i] or ''
end
return answer
