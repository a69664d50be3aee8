-- Replace or delete an entry if it is still the one that the caller saw.
--
-- KEYS[1]  the entry: a string whose bytes 2 to 10 are the id of this writing
-- ARGV[1]  what must be there: "=" and the id, or "-" for nothing
-- ARGV[2]  what to do: "set", "del"
-- ARGV[3]  the new value
-- ARGV[4]  its time to live in milliseconds; "" for none, "keep" for that of the old one
-- Result   1 if it was done, else 0
--
-- What is no string reads as missing, so it counts as nothing here, too.

local present
local id = redis.pcall('GETRANGE', KEYS[1], 2, 9)
if type(id) == 'table' then
  if not string.find(id.err, 'WRONGTYPE', 1, true) then
    return id
  end
  present = '-'
elseif id ~= '' or redis.call('EXISTS', KEYS[1]) == 1 then
  present = '=' .. id
else
  present = '-'
end
if present ~= ARGV[1] then
  return 0
end

if ARGV[2] == 'del' then
  redis.call('UNLINK', KEYS[1])
elseif ARGV[4] == '' then
  redis.call('SET', KEYS[1], ARGV[3])
elseif ARGV[4] == 'keep' then
  redis.call('SET', KEYS[1], ARGV[3], 'KEEPTTL')
else
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
return 1
