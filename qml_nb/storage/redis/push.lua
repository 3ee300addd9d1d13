-- Store new jobs. Answers a digit for each: 1 stored, 0 that id was there or its unique key is taken, 2 its queue is full.
-- {stored, bound} or {queue, bound, offered} if not all fit; 0, and nothing is done, for a part where a queue has a bound.
-- 1: now or ''; 2: max_jobs or ''; 3: how many more come in the next calls; 4: 1 if it is sent again; 5: what the jobs do
-- that find no room: '' all are refused, 'each' these are left out, 'over' they come in, 'part' the caller then says it
-- of this and the next calls together; 6: seconds that deleted jobs are kept, or ''; 7: max_finished_jobs or ''; 8: the
-- error of a job that is dropped; 9, 10: the queue and the negative priority, if all are waiting jobs without a key that
-- share them, and then id, body for each; else '' and how many arguments each has, and then these, as `gather` takes them
local now = clock(ARGV[1])
local answers = gather(11, step, now, ARGV[4] == '1', room)
local refusal = store(most, stored, coming)
if refusal then return refusal end
drop_oldest(now, ARGV[6], ARGV[7], ARGV[8])
finish()
return table.concat(answers)
