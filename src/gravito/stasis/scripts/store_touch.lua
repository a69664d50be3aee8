-- Give an entry another time to live if it is still the one that the caller saw.
--
-- KEYS[1]  the entry: a string whose bytes 2 to 10 are the id of this writing
-- ARGV[1]  the id that must be there
-- ARGV[2]  the time to live in milliseconds; "" for none
-- Result   1 if it was done, else 0

local id = redis.pcall('GETRANGE', KEYS[1], 2, 9)
if type(id) == 'table' then
  if not string.find(id.err, 'WRONGTYPE', 1, true) then
    return id
  end
  return 0
end
if id ~= ARGV[1] then
  return 0
end

if ARGV[2] ~= '' then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
redis.call('PERSIST', KEYS[1])
return redis.call('EXISTS', KEYS[1])
