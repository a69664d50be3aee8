-- Move a queue in time, for tests: what is to happen later happens so much earlier.
--
-- KEYS: see common.lua. ARGV[1]: {ms}.
-- Result: {now ms, next due ms or -1}.

local by = arg[1]

local flat = call('ZRANGE', DELAYED, 0, -1, 'WITHSCORES')
local moved = {}
for i = 1, #flat, 2 do moved[i], moved[i + 1] = flat[i + 1] - by, flat[i] end
each('ZADD', DELAYED, moved)

local limits = call('HGETALL', LIMITS)
for i = 1, #limits, 2 do
  if sub(limits[i], 1, 1) == 'r' then
    call('HSET', LIMITS, limits[i], string.format('%.3f', limits[i + 1] - by))
  end
end

local keys = call('HGETALL', UNIQUE)
for i = 1, #keys, 2 do
  local till, id = match(keys[i + 1], '^(%d+):(.*)$')
  if till ~= '0' then
    call('HSET', UNIQUE, keys[i], string.format('%.0f', math.max(1, till - by)) .. ':' .. id)
  end
end

for _, ended in ipairs({ DONE, DEAD }) do
  flat, moved = call('ZRANGE', ended, 0, -1, 'WITHSCORES'), {}
  for i = 1, #flat, 2 do moved[i], moved[i + 1] = flat[i + 1] - by, flat[i] end
  each('ZADD', ended, moved)
end
wake() -- a worker that sleeps until the next due job looks again
return { now, earliest() or -1 }
