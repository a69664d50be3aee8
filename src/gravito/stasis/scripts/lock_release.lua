-- Ends a lock, if it is the caller's, and wakes one waiter. Also ends the caller's own waiting.
--
-- KEYS[1]  lock    string "<token> <fence>"
-- KEYS[2]  queue   sorted set: token of each waiter, by the server's time (ms) after which it counts as gone
-- KEYS[3]  wake    list: an element is a call for one waiter to try again
-- ARGV[1]  token of the caller
--
-- Result: 1 released, 0 nobody holds it, -1 somebody else does.
--
-- Whenever the lock is free afterwards and somebody waits, exactly one call lies in `wake`: a waiter that leaves
-- may have taken the one that was there.

local token = ARGV[1]
local held = redis.call('GET', KEYS[1])
local mine = held and string.sub(held, 1, #token + 1) == token .. ' '
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if mine then
  redis.call('DEL', KEYS[1])
end
redis.call('ZREM', KEYS[2], token)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[3])
elseif (mine or not held) and redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('RPUSH', KEYS[3], '1')
  redis.call('PEXPIRE', KEYS[3], math.max(1, redis.call('PTTL', KEYS[2])))
end
if mine then
  return 1
end
return held and -1 or 0
