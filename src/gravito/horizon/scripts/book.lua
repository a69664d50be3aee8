-- The book of schedules: read it, or change whether one is paused.
--
-- KEYS: as for fire.lua. ARGV[1]: {} to read; {schedule, '1' to pause or ''}; {schedule} to forget it.
-- Result: {now ms, schedule, its entry, ...}.

local BOOK = COUNTERS
if arg[2] then
  local last, digest, _, fired, id = match(call('HGET', BOOK, arg[1]) or '::::', '^(%d*):([^:]*):(%d*):(%d*):(.*)$')
  call('HSET', BOOK, arg[1], table.concat({ last, digest, arg[2], fired, id }, ':'))
elseif arg[1] then
  call('HDEL', BOOK, arg[1])
end
return { now, unpack(call('HGETALL', BOOK)) }
