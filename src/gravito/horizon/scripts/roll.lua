-- Add the counters of minutes that are over to those of their hour, each once.
--
-- KEYS: see common.lua; then the hash of the hour, those of its 60 minutes. ARGV[1]: {hour}.
-- Result: {now ms, the last minute that was added, or -1 if the queue has never counted anything}.

local hour, last = arg[1], tonumber(call('HGET', CONF, 'rolled'))
if not last then return { now, -1 } end
local over = math.floor(now / 60000) - 2 -- later ones may still be written to
local HOUR, MINUTES = KEYS[#KEYS - 60], #KEYS - 59 - hour * 60
local first, final = math.max(last + 1, hour * 60), math.min(hour * 60 + 59, over)
if first ~= last + 1 or first > final then return { now, last } end
despite_memory()
local grown = false
for minute = first, final do
  local key = KEYS[MINUTES + minute]
  local counters = call('HGETALL', key)
  for i = 1, #counters, 2 do call('HINCRBY', HOUR, counters[i], counters[i + 1]) end
  if #counters > 0 then
    call('EXPIRE', key, 3 * 3600)
    grown = true
  end
end
if grown then call('EXPIRE', HOUR, 8 * 86400) end
call('HSET', CONF, 'rolled', final)
return { now, final }
