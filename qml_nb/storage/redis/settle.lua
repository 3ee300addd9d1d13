-- Write what became of claims. Answers a digit for each: 1 written, 0 the claim is no longer held.
-- 1: now or ''; 2, 3: seconds that completed and failed jobs are kept, or ''; 4: max_finished_jobs or '';
-- 5: 1 if it is sent again; then id, claim, state, result or error, 1 if there is an error, delay for each
for _, i in ipairs(others) do
  local id, h, to, at = ids[i], unpack_head(raws[i]), tonumber(ARGV[6 * i + 2]), 6 * i + 3
  leave(id, h)
  h.state = to
  if to == AWAITING_RETRY then
    h.run, h.worker, h.has_error, h.error = now + tonumber(ARGV[at + 2]), '', tonumber(ARGV[at + 1]), ARGV[at]
  elseif to == FAILED then
    h.finished, h.expires, h.has_error, h.error = now, expires[FAILED], tonumber(ARGV[at + 1]), ARGV[at]
  else h.worker, h.started, h.attempt = '', NONE, h.attempt - 1 end
  enter(id, h)
end
for _, id in ipairs(freed) do ended[#ended + 1] = id end
bound_finished(ARGV[4])
finish()
return table.concat(answers)
