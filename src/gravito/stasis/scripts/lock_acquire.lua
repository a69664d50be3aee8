-- Takes a lock if it is free, else notes that somebody waits.
--
-- KEYS[1]  lock    string "<token> <fence>"; its TTL is what the holder has left
-- KEYS[2]  fence   string: the greatest fence given so far; it outlives the lock
-- KEYS[3]  queue   sorted set: token of each waiter, by the server's time (ms) after which it counts as gone
-- KEYS[4]  wake    list: an element is a call for one waiter to try again
-- ARGV[1]  token of the caller
-- ARGV[2]  TTL of the lock, ms
-- ARGV[3]  ms that the caller will go on waiting for; 0 if this was its last try
-- ARGV[4]  TTL of the fence, ms
--
-- Result: {1, fence}, or {0, ms that the holder has left}.
--
-- Asked again under the token that holds the lock, it answers as it did before, so a caller whose reply was lost
-- may ask again. Fences follow the server's clock, in us: they go on growing even if their key is lost.

local token, ttl, wait, keep = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local GRACE = 1000      -- ms between a waiter's waking and its next call
local NO_TTL = 60000    -- somebody took the lock's TTL away: look again after a minute
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('GET', KEYS[1])
local mine = held and string.sub(held, 1, #token + 1) == token .. ' '

local function leave()
  redis.call('ZREM', KEYS[3], token)
  if redis.call('EXISTS', KEYS[3]) == 0 then
    redis.call('DEL', KEYS[4])
  end
end

if held and not mine then
  local left = redis.call('PTTL', KEYS[1])
  if left < 0 then
    left = NO_TTL
  end
  if wait > 0 then
    redis.call('ZADD', KEYS[3], now + math.min(left, wait) + GRACE, token)
    local last = redis.call('ZRANGE', KEYS[3], -1, -1, 'WITHSCORES')
    redis.call('PEXPIREAT', KEYS[3], string.format('%.0f', last[2]))
  else
    leave()
  end
  return {0, left}
end

local fence
if mine then
  fence = tonumber(string.sub(held, #token + 2))
else
  local last = tonumber(redis.call('GET', KEYS[2]) or 0) or 0
  fence = math.max(last + 1, time[1] * 1000000 + time[2])
  redis.call('SET', KEYS[2], string.format('%.0f', fence), 'PX', keep)
end
redis.call('SET', KEYS[1], token .. ' ' .. string.format('%.0f', fence), 'PX', ttl)
leave()
return {1, fence}
