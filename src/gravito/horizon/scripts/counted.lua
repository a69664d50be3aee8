-- What was counted in some windows of minutes or hours. Changes nothing.
--
-- KEYS: see common.lua; then sums, minutes, hours (see roll.lua); the counters of eight minutes in a row. ARGV[1]:
-- {the first of the eight minutes, job or false, windows}; a window: {hours or not, first, last, since}. since: false, or
-- a period from which on the sums are wanted: it has a record, or it is the window's first.
-- Result: {now ms, the last minute that is closed, or -1, {counts of each window}, {minute, {counter, count, ..}, ..} of those
--   that are not closed, {sums before each window}, sums}. counts: of all jobs, 78 numbers of 8 bytes for each period, or ''
--   for none; of one job, a list of what roll.lua has. sums: '' unless they are wanted.
--   {now ms, the last minute that is closed} alone, if there are open ones before the eight.

local eldest, job, windows = unpack(arg, 1, 3)
local rolled = tonumber(call('HGET', CONF, 'rolled'))
if rolled and rolled + 1 < eldest then return { now, rolled } end
local SUMS, MINUTES, HOURS, OPEN = KEYS[#KEYS - 10], KEYS[#KEYS - 9], KEYS[#KEYS - 8], #KEYS - 7 - eldest
local NOTHING = string.rep('\0', 78 * 8)

local function fields_of(from, to, tail)
  local fields = {}
  for period = from, to do fields[#fields + 1] = period .. tail end
  return fields
end

local sums, befores, counts = '', {}, {}
for at, window in ipairs(windows) do
  local key, from, to, since = window[1] and HOURS or MINUTES, window[2], window[3], window[4]
  local every = from <= to and call('HMGET', key, unpack(fields_of(from, to, ''))) or {}
  local first = nil -- of those in which something was counted
  for i = 1, #every do
    if every[i] then first = first or from + i - 1 else every[i] = NOTHING end
  end
  if job then
    every = first and call('HMGET', key, unpack(fields_of(from, to, '|' .. job))) or {}
    for i = 1, #every do every[i] = every[i] or '' end
    counts[at] = every
  else
    counts[at] = first and table.concat(every) or ''
  end
  befores[at] = ''
  if since then
    if since == from then since = first end
    sums = sums ~= '' and sums or call('GET', SUMS) or ''
    befores[at] = since and call('HGET', key, since .. 'b') or sums
  end
end
local open = {}
for minute = (rolled or now) + 1, math.min(math.floor(now / 60000), eldest + 7) do
  local flat = call('HGETALL', KEYS[OPEN + minute])
  if #flat > 0 then open[#open + 1], open[#open + 2] = minute, flat end
end
return { now, rolled or -1, counts, open, befores, sums }
