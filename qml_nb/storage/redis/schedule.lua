-- How recurring schedules are kept. Used by the verbs that store one.

-- `next_ts` is '' for one that does not fire.
local function put_schedule(id, packed, next_ts)
  call('HSET', T .. 'recurring', id, packed)
  if next_ts == '' then call('ZREM', T .. 'recurring:due', id) else call('ZADD', T .. 'recurring:due', next_ts, id) end
end
