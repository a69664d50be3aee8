-- Push jobs. Repeating a call with the same serial changes nothing and gives the same answer.
--
-- KEYS, ARGV[2]: see common.lua. ARGV[1]: {client, serial, ids, marks, bodies, extra}, the last four as `take` has them.
-- Result: {now ms, exceptions}, these packed as `take` gives them, or ''; {now ms} alone for a serial that a later one
-- of the same client has overtaken.

local client, serial = arg[1], arg[2]
local last = call('HGET', PRODUCERS, client)
if last then
  local before, answer = match(last, '^(%d+):%d+:(.*)$')
  before = tonumber(before)
  if before == serial then return { now, answer } end
  if before > serial then return { now } end
end
local odd = take(arg[3], arg[4], arg[5], arg[6])
local answer = #odd > 0 and cmsgpack.pack(odd) or ''
call('HSET', PRODUCERS, client, string.format('%d:%.0f:', serial, now) .. answer)
return { now, answer }
