-- How many jobs are where. Changes nothing.
--
-- KEYS: see common.lua. ARGV[1]: {}.
-- Result: {now ms, {ready by priority}, fair, delayed, running, parked, done, dead, outbox, paused, totals}.

local ready = {}
for line = 0, 3 do ready[line + 1] = call('LLEN', KEYS[2 + line]) end
local waits = call('HGET', LIMITS, 'waits') or 0 -- of rate limits; no jobs
return {
  now, ready, call('ZCARD', FAIR), call('ZCARD', DELAYED) - waits, call('HLEN', ACTIVE), call('ZCARD', PARKED),
  call('ZCARD', DONE), call('ZCARD', DEAD), call('LLEN', OUTBOX), call('HGET', CONF, 'paused') or '', call('HGETALL', TOTALS),
}
