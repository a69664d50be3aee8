-- Add the counters of a minute to those of its hour, once.
--
-- KEYS: see common.lua; then the hash of the minute, that of the hour. ARGV[1]: {minute}.
-- Result: {now ms, the last minute that was added}.

local minute, last = arg[1], tonumber(call('HGET', CONF, 'rolled'))
if last and minute <= last then return { now, last } end
if minute >= math.floor(now / 60000) - 1 then return { now, last or minute - 1 } end -- it may still be written to
despite_memory()
local counters = call('HGETALL', KEYS[30])
for i = 1, #counters, 2 do call('HINCRBY', KEYS[31], counters[i], counters[i + 1]) end
if #counters > 0 then call('EXPIRE', KEYS[31], 7 * 86400 + 3600) end
call('HSET', CONF, 'rolled', minute)
return { now, minute }
