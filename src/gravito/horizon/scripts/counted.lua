-- What was counted in a window of minutes or hours. Changes nothing.
--
-- KEYS: see common.lua; then sums; minutes or hours (see roll.lua); the counters of eight minutes in a row. ARGV[1]:
-- {first and last of the window, the first of the eight minutes, job or false, since}. since: false, or a period from
-- which on the sums are wanted: it has a record, or it is the window's first.
-- Result: {now ms, the last minute that is closed, or -1, counts, {minute, {counter, count, ..}, ..} of those that are not,
--   sums before the window, sums}. counts: of all jobs, 78 numbers of 8 bytes for each of the window, or '' for none; of
--   one job, a list of what roll.lua has. sums: '' unless they are wanted.
--   {now ms, the last minute that is closed} alone, if there are open ones before the eight.

local from, to, eldest, job, since = unpack(arg, 1, 5)
local rolled = tonumber(call('HGET', CONF, 'rolled'))
if not rolled then return { now, -1, job and {} or '', {}, '', '' } end
if rolled + 1 < eldest then return { now, rolled } end
local SUMS, PERIODS, OPEN = KEYS[#KEYS - 9], KEYS[#KEYS - 8], #KEYS - 7 - eldest
local NOTHING = string.rep('\0', 78 * 8)

local function fields_of(tail)
  local fields = {}
  for period = from, to do fields[#fields + 1] = period .. tail end
  return fields
end

local every = from <= to and call('HMGET', PERIODS, unpack(fields_of(''))) or {}
local first = nil -- of those in which something was counted
for at = 1, #every do
  if every[at] then first = first or from + at - 1 else every[at] = NOTHING end
end
local counts = first and not job and table.concat(every) or ''
if job then
  counts = first and call('HMGET', PERIODS, unpack(fields_of('|' .. job))) or {}
  for at = 1, #counts do counts[at] = counts[at] or '' end
end
local open = {}
for minute = rolled + 1, math.min(math.floor(now / 60000), eldest + 7) do
  local flat = call('HGETALL', KEYS[OPEN + minute])
  if #flat > 0 then open[#open + 1], open[#open + 2] = minute, flat end
end
local before, sums = '', ''
if since then
  if since == from then since = first end
  sums = call('GET', SUMS) or ''
  before = since and call('HGET', PERIODS, since .. 'b') or sums
end
return { now, rolled, counts, open, before, sums }
