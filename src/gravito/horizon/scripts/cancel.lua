-- Cancel jobs: those that wait end at once, those that run are asked to.
--
-- KEYS, ARGV[2]: see common.lua. ARGV[1]: {ids, records, keep}; records: by id, what to keep as the
-- result; keep: ended jobs to keep at most.
-- Result: {now ms, states}; a state is cancelled, running (it was asked to end), dead, ended or unknown.

local states, ended, told = {}, {}, {}

local function unparked(id)
  local spot = call('HGET', SPOTS, id)
  if not spot then return false end
  call('ZREM', PARKED, spot)
  call('HDEL', SPOTS, id)
  return true
end

local function cancel(id, record)
  if call('HEXISTS', JOBS, id) == 0 then return call('HEXISTS', RESULTS, id) == 1 and 'ended' or 'unknown' end
  if call('HEXISTS', ACTIVE, id) == 1 then
    call('SADD', CANCELS, id)
    call('PUBLISH', ARGV[2] .. 'ctl', 'cancel ' .. id)
    return 'running'
  end
  if call('ZSCORE', DEAD, id) then return 'dead' end
  local found = call('ZREM', DELAYED, members_of(id)) + call('ZREM', FAIR, members_of(id)) > 0 or unparked(id)
  forget(id, not found)
  if record then
    call('HSET', RESULTS, id, 'c' .. record)
    ended[#ended + 1], ended[#ended + 2] = now, id
  end
  told[#told + 1], told[#told + 2] = id, 'cancelled'
  return 'cancelled'
end

despite_memory()
for i = 1, #arg[1] do states[i] = cancel(arg[1][i], arg[2][arg[1][i]]) end
flush()
if #ended > 0 then keep_results(ended, arg[3]) end
if #told > 0 then call('HINCRBY', TOTALS, 'cancelled', #told / 2) end
tell(told)
return { now, states }
