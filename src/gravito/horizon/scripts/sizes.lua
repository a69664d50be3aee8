-- How many jobs are where. Changes nothing.
--
-- KEYS: see common.lua. ARGV[1]: {heads}: whether to give the bodies of the jobs that are at the head of a line.
-- Result: {now ms, {ready by priority}, fair, delayed, running, parked, done, dead, outbox, paused, totals, bodies}.

local some = call('EXISTS', KEYS[2], KEYS[3], KEYS[5], FAIR, PARKED, OUTBOX, LIMITS) > 0 -- most queues have none of these
local function rare(name, ...) return some and call(name, ...) or 0 end

local ready = { rare('LLEN', KEYS[2]), rare('LLEN', KEYS[3]), call('LLEN', KEYS[4]), rare('LLEN', KEYS[5]) }
local fair, waits = rare('ZCARD', FAIR), rare('HGET', LIMITS, 'waits') or 0 -- of rate limits; no jobs
local bodies = {}
if arg[1] then
  local function show(entry) bodies[#bodies + 1] = entry and call('HGET', JOBS, entry) or nil end
  for line = 0, 3 do
    local head = ready[line + 1] > 0 and call('LINDEX', KEYS[2 + line], 0)
    if head then show(sub(head, 1, 1) == '!' and sub(head, 2) or head) end
  end
  if fair > 0 then show(sub(call('ZRANGE', FAIR, 0, 0)[1], 2)) end
end
return {
  now, ready, fair, call('ZCARD', DELAYED) - waits, call('HLEN', ACTIVE), rare('ZCARD', PARKED), call('ZCARD', DONE),
  call('ZCARD', DEAD), rare('LLEN', OUTBOX), call('HGET', CONF, 'paused') or '', call('HGETALL', TOTALS), bodies,
}
