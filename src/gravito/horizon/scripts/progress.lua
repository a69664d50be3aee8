-- How far running jobs are. A run that was overtaken changes nothing.
--
-- KEYS: 1 active HASH, as in common.lua: id -> '<mark><fence>:<worker>'; running jobs
--       2 progress HASH id -> what the job told last, opaque
-- ARGV: 1 seconds to keep it all after the last change; then for each job: id, fence, what it tells; '' forgets it
-- Result: how many were taken. Safe to repeat.

local taken = 0
for i = 2, #ARGV, 3 do
  local id, fence, told = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if told == '' then
    redis.call('HDEL', KEYS[2], id)
  else
    local held = redis.call('HGET', KEYS[1], id)
    if held and string.match(held, '^.(%d+):') == fence then
      redis.call('HSET', KEYS[2], id, told)
      taken = taken + 1
    end
  end
end
redis.call('EXPIRE', KEYS[2], ARGV[1])
return taken
