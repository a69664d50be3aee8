-- Hear of the end of jobs, or hear no longer.
--
-- KEYS, ARGV[2]: see common.lua. ARGV[1]: {client, ids, leave}; leave: true to hear no longer.
-- Result: {now ms, for each id: waiting, or the state of a job that does not run or wait any more: ok, cancelled, dead,
-- unknown}.

local client, states = arg[1], {}

local function others(id)
  local names = {}
  for name in string.gmatch(call('HGET', WAITING, id) or '', '%S+') do
    if name ~= client then names[#names + 1] = name end
  end
  return names
end

despite_memory()
for i, id in ipairs(arg[2]) do
  local state = 'waiting'
  if call('HEXISTS', JOBS, id) == 0 then
    local kept = call('HGET', RESULTS, id)
    state = kept and (sub(kept, 1, 1) == 'o' and 'ok' or 'cancelled') or 'unknown'
  elseif call('ZSCORE', DEAD, id) then
    state = 'dead'
  end
  local names = others(id)
  if state == 'waiting' and not arg[3] then names[#names + 1] = client end
  if #names > 0 then call('HSET', WAITING, id, table.concat(names, ' ')) else call('HDEL', WAITING, id) end
  states[i] = state
end
return { now, unpack(states) }
