-- Gives a lock a new TTL, or only looks at it, if it is the caller's.
--
-- KEYS[1]  lock    string "<token> <fence>"; its TTL is what the holder has left
-- ARGV[1]  token of the caller
-- ARGV[2]  TTL from now, ms; 0 leaves it as it is
--
-- Result: {1, fence, ms left}, {0} nobody holds it, or {-1} somebody else does.

local token, ttl = ARGV[1], tonumber(ARGV[2])
local held = redis.call('GET', KEYS[1])
if not held then
  return {0}
end
if string.sub(held, 1, #token + 1) ~= token .. ' ' then
  return {-1}
end
if ttl > 0 then
  redis.call('PEXPIRE', KEYS[1], ttl)
end
return {1, tonumber(string.sub(held, #token + 2)), redis.call('PTTL', KEYS[1])}
