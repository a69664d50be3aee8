-- Takes tokens from a bucket that fills at a constant rate.
--
-- What is kept is what the bucket lacks, in whole units: a token is so many of them that a whole number flows in
-- each us, and nothing is lost by rounding.
--
-- KEYS[1]  bucket  string "<server's time in us> <units that it lacked then> <units of a token>"
-- ARGV[1]  units that the bucket holds
-- ARGV[2]  units of a token
-- ARGV[3]  tokens that this call takes
-- ARGV[4]  1 to take them if they are there, 0 only to ask
-- ARGV[5]  units that flow in each us
--
-- Result: {1 if allowed, tokens that remain, us until so many would be there, us until the bucket is full,
--          the server's time in us}.

local size, token, cost, spend = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local rate = tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local state = redis.call('GET', KEYS[1])
local lacks = 0
if state then
  local at, then_lacked, then_token = string.match(state, '^(%d+) (%d+) (%d+)$')
  if not at then
    return redis.error_reply('ERR ' .. KEYS[1] .. ' holds no bucket of a limiter')
  end
  lacks = tonumber(then_lacked)
  if tonumber(then_token) ~= token then  -- the rule was changed: so many tokens, in the new units
    lacks = math.ceil(lacks * token / tonumber(then_token))
  end
  lacks = math.max(0, lacks - math.max(0, now - at) * rate)  -- clocks are set back
end

local over = lacks + cost * token - size
local allowed = over <= 0
if allowed and spend then
  lacks = lacks + cost * token
  local full_ms = math.ceil(lacks / rate / 1000) + 1
  redis.call('SET', KEYS[1], string.format('%.0f %.0f %.0f', now, lacks, token),
    'PX', string.format('%.0f', full_ms))
end
return {allowed and 1 or 0, math.max(0, math.floor((size - lacks) / token)),
  allowed and 0 or math.ceil(over / rate), math.ceil(lacks / rate), now}
