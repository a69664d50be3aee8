-- Add to a counter, exactly, within 64 bits.
--
-- KEYS[1]  the entry: a blob; a counter has "C" in byte 1 and the number in ASCII as its body
-- ARGV[1]  the blob of a new counter without a body. Its versions (byte 31 to the end) must be those of the
--          counter that is there; its id (bytes 2 to 10) becomes the counter's
-- ARGV[2]  what is added, in ASCII
-- ARGV[3]  the time to live of a new counter in milliseconds; "" for none
-- Result   the new number in ASCII; "overflow" if it would not fit, nil if there is something else than such a
--          counter: then nothing is changed

local DIGITS = 15 -- numbers of so many are exact in Lua, and so is the sum of two
local key, fresh, by = KEYS[1], ARGV[1], ARGV[2]
local size = #fresh

local raw = redis.pcall('GETRANGE', key, 0, size + 20)
if type(raw) == 'table' then
  if not string.find(raw.err, 'WRONGTYPE', 1, true) then
    return raw
  end
  raw = ''
elseif raw == '' and redis.call('EXISTS', key) == 1 then
  return false
end

if raw == '' then
  if ARGV[3] == '' then
    redis.call('SET', key, fresh .. by)
  else
    redis.call('SET', key, fresh .. by, 'PX', ARGV[3])
  end
  return by
end

local number = string.sub(raw, size + 1)
if string.sub(raw, 1, 2) ~= string.sub(fresh, 1, 2) or string.sub(raw, 32, size) ~= string.sub(fresh, 32) then
  return false
end
if not (number == '0' or string.find(number, '^%-?[1-9]%d*$')) or #number > 20 then
  return false
end

local head = string.sub(raw, 1, 2) .. string.sub(fresh, 3, 10) .. string.sub(raw, 11, size)
if #number <= DIGITS and #by <= DIGITS then
  local sum = string.format('%.0f', tonumber(number) + tonumber(by))
  redis.call('SET', key, head .. sum, 'KEEPTTL')
  return sum
end

-- Beyond that the server adds: its integers have 64 bits. Nobody sees what is there meanwhile.
redis.call('SET', key, number, 'KEEPTTL')
local added = redis.pcall('INCRBY', key, by)
if type(added) == 'table' then
  redis.call('SET', key, raw, 'KEEPTTL')
  if string.find(added.err, 'overflow', 1, true) then
    return 'overflow'
  elseif string.find(added.err, 'not an integer', 1, true) then
    return false
  end
  return added
end
local sum = redis.call('GET', key)
redis.call('SET', key, head .. sum, 'KEEPTTL')
return sum
