-- Counts what a limiter allows in any interval of one length: a log of what was allowed, and when.
--
-- KEYS[1]  log     list: total, time, total, time, ..., total. Each time (us) stands between the totals of all costs
--                  before and after what was allowed then; the oldest first
-- ARGV[1]  limit of an interval
-- ARGV[2]  length of an interval, us
-- ARGV[3]  cost of this call
-- ARGV[4]  1 to count it if it is allowed, 0 only to ask
-- ARGV[5]  grain of the times, us: they are rounded up to it, and one entry holds all calls of a grain
--
-- Result: {1 if allowed, what remains, us until this cost would be allowed, us until nothing is used,
--          the server's time in us}.
--
-- With totals, what is used is a difference of two: only the front of the log is read.

local limit, per, cost, spend = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local grain = tonumber(ARGV[5])
local CHUNK = 16  -- elements read at once
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local size = redis.call('LLEN', KEYS[1])
local entries = math.floor(size / 2)

local chunk, chunk_at = {}, nil
local function element(i)  -- from 0
  local at = i - i % CHUNK
  if at ~= chunk_at then
    chunk, chunk_at = redis.call('LRANGE', KEYS[1], at, at + CHUNK - 1), at
  end
  return tonumber(chunk[i - at + 1]) or error(KEYS[1] .. ' holds no log of a limiter')
end
local function time(i)  -- of an entry, from 0
  return element(2 * i + 1)
end
local function before(i)  -- the total before an entry; behind the last one, of all
  return element(2 * i)
end

local last = entries > 0 and time(entries - 1)
local total = size > 0 and before(entries) or 0
local first = 0  -- entry that still counts
while first < entries and time(first) + per <= now do
  first = first + 1
end
local used = size > 0 and total - before(first) or 0

local allowed = used + cost <= limit
local retry = 0
if not allowed then
  local entry = first
  while total - before(entry + 1) + cost > limit do
    entry = entry + 1
  end
  retry = math.max(1, time(entry) + per - now)
elseif spend then
  -- Rounded up, it counts for up to a grain longer, never shorter. Never before the last one: clocks are set back.
  local at = math.max(math.ceil(now / grain) * grain, last or 0)
  local sum = string.format('%.0f', total + cost)
  if first > 0 then
    redis.call('LTRIM', KEYS[1], 2 * first, -1)
  end
  if last == at and first < entries then
    redis.call('LSET', KEYS[1], -1, sum)
  elseif size > 0 then
    redis.call('RPUSH', KEYS[1], string.format('%.0f', at), sum)
  else
    redis.call('RPUSH', KEYS[1], '0', string.format('%.0f', at), sum)
  end
  used, last = used + cost, at
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil((at + per - now) / 1000) + 1))
end
local reset = last and math.max(0, last + per - now) or 0
return {allowed and 1 or 0, math.max(0, limit - used), retry, reset, now}
