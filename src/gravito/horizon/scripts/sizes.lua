-- How many jobs are where. Changes nothing.
--
-- KEYS: see common.lua. ARGV[1]: {heads}: whether to give the bodies of the jobs that are at the head of a line.
-- Result: {now ms, {ready by priority; without those that were cancelled and whose members are still there}, fair, delayed, running, parked, done, dead, outbox, paused, totals, bodies}.

local some = call('EXISTS', KEYS[2], KEYS[3], KEYS[5], FAIR, PARKED, OUTBOX, LIMITS, GONE) > 0 -- most queues have none of these
local function rare(name, ...) return some and call(name, ...) or 0 end

local ready = { rare('LLEN', KEYS[2]), rare('LLEN', KEYS[3]), call('LLEN', KEYS[4]), rare('LLEN', KEYS[5]) }
local fair, waits = rare('ZCARD', FAIR), rare('HGET', LIMITS, 'waits') or 0 -- of rate limits; no jobs
local gone, first, bodies = rare('SCARD', GONE), {}, {}

-- How many of the first members of a line are gone, and which is the first that is not.
local function survey(line)
  local ids = call('LRANGE', KEYS[2 + line], 0, MOST - 1)
  for i = 1, #ids do ids[i] = match(ids[i], '^!?(.*)$') end
  local flags, n, head = call('SMISMEMBER', GONE, unpack(ids)), 0, nil
  for i = 1, #ids do
    if flags[i] == 1 then n = n + 1 else head = head or ids[i] end
  end
  return n, head
end

for line = 0, gone > 0 and 3 or -1 do
  if ready[line + 1] > 0 then
    local n, head = survey(line)
    ready[line + 1], gone, first[line] = ready[line + 1] - n, gone - n, head or ''
  end
end
while gone > 0 do -- farther behind: in the longest line, most probably
  local longest = 1
  for line = 2, 4 do longest = ready[line] > ready[longest] and line or longest end
  if ready[longest] == 0 then break end
  local n = math.min(gone, ready[longest])
  ready[longest], gone = ready[longest] - n, gone - n
end
if arg[1] then
  local function show(entry) bodies[#bodies + 1] = entry and call('HGET', JOBS, entry) or nil end
  for line = 0, 3 do
    local head = first[line] or (ready[line + 1] > 0 and call('LINDEX', KEYS[2 + line], 0))
    if head then show(sub(head, 1, 1) == '!' and sub(head, 2) or head) end
  end
  if fair > 0 then show(sub(call('ZRANGE', FAIR, 0, 0)[1], 2)) end
end
return {
  now, ready, fair, call('ZCARD', DELAYED) - waits, call('HLEN', ACTIVE), rare('ZCARD', PARKED), call('ZCARD', DONE),
  call('ZCARD', DEAD), rare('LLEN', OUTBOX), call('HGET', CONF, 'paused') or '', call('HGETALL', TOTALS), bodies,
}
