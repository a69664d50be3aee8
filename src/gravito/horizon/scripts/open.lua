-- What a broker must know before its first call. Changes nothing.
--
-- KEYS: see common.lua. ARGV[1]: {}.
-- Result: {now ms, eviction policy, memory limit in bytes}; the last two are '' where the user may not ask.

local said = redis.pcall('INFO', 'memory')
local text = type(said) == 'string' and said or ''
return { now, match(text, 'maxmemory_policy:(%S+)') or '', match(text, 'maxmemory:(%d+)') or '' }
