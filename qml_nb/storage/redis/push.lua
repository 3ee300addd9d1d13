-- Store new jobs. Answers a digit for each: 1 stored, 0 that id was there. {stored, bound} if they don't all fit.
-- 1: max_jobs or ''; 2: how many more come in the next calls; 3: 1 if it is sent again; 4, 5: the queue and the
-- negative priority, if all are waiting jobs that share them, and then id, body for each; else '' and '', and then
-- id, body, run_ts or '' for each
local most, coming, again, its_queue, score = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4], ARGV[5]
local step = its_queue == '' and 3 or 2
local jobs = (#ARGV - 5) / step
local stored = most and unfinished()

-- Mostly jobs are new, alike, and fit: then commands that take all at once store them, with nothing done for each.
if step == 2 and (not most or stored + jobs + coming <= most) then
  local aged = {}
  for i = 1, 2 * jobs, 2 do aged[i], aged[i + 1] = '0', ARGV[i + 5] end
  if call('ZADD', IDS, 'NX', unpack(aged)) == jobs then
    call('HSET', JOBS, unpack(ARGV, 6))
    if score ~= '0' then
      for i = 1, 2 * jobs, 2 do aged[i] = score end
    end
    call('ZADD', READY .. its_queue, unpack(aged))
    call('SADD', QUEUES, its_queue)
    count(ENQUEUED, its_queue, jobs)
    wake(its_queue, jobs)
    write_counts()
    return string.rep('1', jobs)
  end
end

local ids = {}
for i = 1, jobs do ids[i] = ARGV[6 + step * (i - 1)] end
local there = look_up('HMGET', JOBS, ids)
local answers, bodies, heads, aged, due, ready, seen, new = {}, {}, {}, {}, {}, {}, {}, 0
for i = 1, jobs do
  local id, body, run = ids[i], ARGV[7 + step * (i - 1)], step == 3 and ARGV[5 + 3 * i] or ''
  if there[i] or seen[id] then
    -- Sent again after a lost answer: it is this very job that lies there.
    answers[i] = again and there[i] == body and '1' or '0'
  else
    local priority, _, queue = struct.unpack(BODY, body)
    answers[i], seen[id], new = '1', true, new + 1
    bodies[2 * new - 1], bodies[2 * new], aged[2 * new - 1], aged[2 * new] = id, body, 0, id
    if run == '' then
      local line = ready[queue]
      if not line then line = {} ready[queue] = line end
      line[#line + 1], line[#line + 2] = -priority, id
    else
      local h = new_head(body)
      h.state, h.run = SCHEDULED, tonumber(run)
      heads[#heads + 1], heads[#heads + 2] = id, pack_head(h)
      due[#due + 1], due[#due + 2] = run, id
      count(SCHEDULED, queue, 1)
    end
  end
end
if new > 0 and most and stored + new + coming > most then return {stored, new + coming} end
many('HSET', JOBS, bodies, 2)
many('ZADD', IDS, aged, 2)
many('HSET', HEADS, heads, 2)
many('ZADD', DUE, due, 2)
for queue, line in pairs(ready) do
  many('ZADD', READY .. queue, line, 2)
  call('SADD', QUEUES, queue)
  count(ENQUEUED, queue, #line / 2)
  wake(queue, #line / 2)
end
write_counts()
return table.concat(answers)
