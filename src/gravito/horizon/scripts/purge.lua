-- Forget a part of a queue, some jobs at a time. Running jobs stay.
--
-- KEYS, ARGV[2]: see common.lua. ARGV[1]: {part, most}; part: ready, delayed, parked, done or dead.
-- Result: {now ms, forgotten, left}.

local part, most = arg[1], arg[2]
local ids, told = {}, {}

local function drawn(members, from)
  for i = 1, #members do ids[#ids + 1] = sub(members[i], from) end
end

if part == 'ready' then
  for line = 0, 3 do
    for _, entry in ipairs(#ids < most and call('LPOP', KEYS[2 + line], most - #ids) or {}) do
      ids[#ids + 1] = match(entry, '^!?(.*)$')
    end
  end
  local fair = #ids < most and call('ZRANGE', FAIR, 0, most - #ids - 1) or {}
  each('ZREM', FAIR, fair)
  drawn(fair, 2)
  each('SREM', GONE, ids)
elseif part == 'delayed' then
  local members = call('ZRANGE', DELAYED, 0, most - 1 + (call('HGET', LIMITS, 'waits') or 0))
  for i = #members, 1, -1 do
    if sub(members[i], 1, 1) == 'L' then table.remove(members, i) end -- parked jobs still need it
  end
  each('ZREM', DELAYED, members)
  drawn(members, 2)
elseif part == 'parked' then
  local spots = call('ZRANGE', PARKED, 0, most - 1)
  each('ZREM', PARKED, spots)
  for i = 1, #spots do ids[i] = match(spots[i], '^%Z*%z%d+%z.(.*)$') end
  each('HDEL', SPOTS, ids)
elseif part == 'done' then
  ids = call('ZRANGE', DONE, 0, most - 1)
  each('ZREM', DONE, ids)
  each('HDEL', RESULTS, ids)
elseif part == 'dead' then
  ids = call('ZRANGE', DEAD, 0, most - 1)
  each('ZREM', DEAD, ids)
end
local live = part ~= 'done' and part ~= 'dead'
if part ~= 'done' then
  for _, id in ipairs(ids) do
    if live and call('HEXISTS', JOBS, id) == 1 then told[#told + 1], told[#told + 2] = id, 'cancelled' end
    forget(id)
  end
end
flush()
if #told > 0 then call('HINCRBY', TOTALS, 'cancelled', #told / 2) end
tell(told)
local left = { done = { 'ZCARD', DONE }, dead = { 'ZCARD', DEAD }, parked = { 'ZCARD', PARKED } }
left = left[part] and call(unpack(left[part])) or 0
if part == 'ready' then
  left = call('LLEN', KEYS[2]) + call('LLEN', KEYS[3]) + call('LLEN', KEYS[4]) + call('LLEN', KEYS[5]) + call('ZCARD', FAIR)
elseif part == 'delayed' then
  left = call('ZCARD', DELAYED) - (call('HGET', LIMITS, 'waits') or 0)
end
return { now, #ids, left }
