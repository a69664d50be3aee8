-- Counts what a limiter allows in a window that begins with the first call and ends by itself.
--
-- KEYS[1]  window  string: the cost so far; its TTL is what is left of the window
-- ARGV[1]  limit of a window
-- ARGV[2]  length of a window, us; whole ms
-- ARGV[3]  cost of this call
-- ARGV[4]  1 to count it if it is allowed, 0 only to ask
--
-- Result: {1 if allowed, what remains, us until this cost would be allowed, us until nothing is used,
--          the server's time in us}.

local limit, per, cost, spend = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local used = tonumber(redis.call('GET', KEYS[1]) or 0)
if not used then
  return redis.error_reply('ERR ' .. KEYS[1] .. ' holds no window of a limiter')
end

local left = redis.call('PTTL', KEYS[1])
local begun = left >= 0
if begun then
  left = (left + 1) * 1000  -- the key is there for up to 1 ms longer than its TTL says
else
  used, left = 0, 0
end

local allowed = used + cost <= limit
if allowed and spend then
  used = used + cost
  if begun then
    redis.call('INCRBY', KEYS[1], cost)
  else
    redis.call('SET', KEYS[1], cost, 'PX', per / 1000)
    left = per
  end
end
return {allowed and 1 or 0, math.max(0, limit - used), allowed and 0 or left, left, now}
