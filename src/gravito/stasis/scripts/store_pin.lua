-- Make sure that versions are there and stay; never shorten their time to live.
--
-- KEYS     the versions: strings of 8 random bytes
-- ARGV[1]  milliseconds that each has to stay at least; "" for ever
-- ARGV[2]  milliseconds that it gets if it has less: more, so that not every call writes
-- ARGV[3.] a random version for each key, in case that it has none
-- Result   the versions, in the order of the keys

local versions = {}
for at, key in ipairs(KEYS) do
  local version = redis.pcall('GETRANGE', key, 0, 8)
  if type(version) == 'table' then
    if not string.find(version.err, 'WRONGTYPE', 1, true) then
      return version
    end
    version = ''
  end

  if #version ~= 8 then
    version = ARGV[at + 2]
    if ARGV[1] == '' then
      redis.call('SET', key, version)
    else
      redis.call('SET', key, version, 'PX', ARGV[2])
    end
  else
    local left = redis.call('PTTL', key)
    if left >= 0 and ARGV[1] == '' then
      redis.call('PERSIST', key)
    elseif left >= 0 and left < tonumber(ARGV[1]) then
      redis.call('PEXPIRE', key, ARGV[2])
    end
  end
  versions[at] = version
end
return versions
