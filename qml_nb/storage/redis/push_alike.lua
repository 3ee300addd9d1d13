-- What `push` does first: mostly jobs are new, alike, and fit; then commands that take all at once store them, with nothing
-- done for each. The arguments are in push.lua.
local most, coming, room, its_queue, score = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[5], ARGV[9], ARGV[10]
if room == 'part' and in_use('bounds') then return 0 end
local step = its_queue == '' and tonumber(score) or 2
local jobs, stored = (#ARGV - 10) / step, most and call('ZCARD', IDS) - finished()
local fit = its_queue ~= '' and (not most or stored + jobs + coming <= most)
if fit and room ~= 'over' and in_use('bounds') then
  local _, _, _, bound = limits_of(its_queue)
  fit = not bound or bound == 0 or call('ZCARD', READY .. its_queue) + jobs <= bound
end
if fit then
  local alike = {}
  for i = 1, 2 * jobs, 2 do alike[i], alike[i + 1] = '0', ARGV[i + 10] end
  if call('ZADD', IDS, 'NX', unpack(alike)) == jobs then
    call('HSET', JOBS, unpack(ARGV, 11))
    if score ~= '0' then
      for i = 1, 2 * jobs, 2 do alike[i] = score end
    end
    call('ZADD', READY .. its_queue, unpack(alike))
    call('SADD', QUEUES, its_queue)
    count(ENQUEUED, its_queue, jobs)
    wake(its_queue, jobs)
    write_counts()
    return string.rep('1', jobs)
  end
end
