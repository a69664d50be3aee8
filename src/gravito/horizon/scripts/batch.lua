-- A batch: which of its jobs are left, how the others ended, and what is owed for that.
--
-- KEYS: 1 state HASH  name, total, allowed (failures), ok, dead, cancelled, discarded, lost (counts), sealed (all jobs
--                     were added), stopped (no more jobs are wanted), created, ended (ms), then, catch, finally
--                     (packed jobs), said:<what> and paid:<what> (a consequence that is due, and one that was seen to)
--       2 left HASH   id -> queue; jobs that have not ended
--       3 failed ZSET ms of the end; ids of dead jobs, the first hundred
-- ARGV: 1 what happens: begin, add, seal, stop, end, pay, look; then
--       begin: seconds to keep it, field, value, ...   add: id, queue, ...   end: seconds to keep it, id, state, ...
--       pay: what, ...   2 of seal, stop: seconds to keep it
-- Result: {fields and values of the state, jobs left, what is owed}; nil for a batch that is not there. Safe to repeat.

local STATE, LEFT, FAILED = KEYS[1], KEYS[2], KEYS[3]
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local event = ARGV[1]

local function field(name) return call('HGET', STATE, name) end
local function number(name) return tonumber(field(name) or 0) end

-- What follows from the counts, each once.
local function judge()
  local bad = number('dead') + number('lost')
  local failed = bad > number('allowed')
  if failed then
    if field('catch') then call('HSETNX', STATE, 'said:catch', now) end
    if call('HLEN', LEFT) > 0 then call('HSETNX', STATE, 'said:cancel', now) end
    call('HSETNX', STATE, 'stopped', 'failed')
  end
  if number('sealed') == 1 and call('HLEN', LEFT) == 0 then
    call('HSETNX', STATE, 'ended', now)
    if not field('stopped') and field('then') then call('HSETNX', STATE, 'said:then', now) end
    if field('finally') then call('HSETNX', STATE, 'said:finally', now) end
  end
end

local function keep(seconds)
  for i = 1, 3 do call('EXPIRE', KEYS[i], seconds) end
end

if event == 'begin' then
  if call('EXISTS', STATE) == 0 then
    call('HSET', STATE, 'created', now, unpack(ARGV, 3))
  end
elseif call('EXISTS', STATE) == 0 then
  return nil
elseif event == 'add' then
  if number('sealed') == 0 then
    local added = call('HSET', LEFT, unpack(ARGV, 2))
    call('HINCRBY', STATE, 'total', added)
  end
elseif event == 'seal' then
  call('HSET', STATE, 'sealed', 1)
elseif event == 'stop' then
  call('HSETNX', STATE, 'stopped', 'cancelled')
  call('HSETNX', STATE, 'said:cancel', now)
elseif event == 'end' then
  for i = 3, #ARGV, 2 do
    local id, state = ARGV[i], ARGV[i + 1]
    if call('HDEL', LEFT, id) == 1 then
      call('HINCRBY', STATE, state, 1)
      if state == 'dead' and call('ZCARD', FAILED) < 100 then call('ZADD', FAILED, now, id) end
    end
  end
elseif event == 'pay' then
  for i = 2, #ARGV do call('HSETNX', STATE, 'paid:' .. ARGV[i], now) end
end
if event ~= 'look' then judge() end
if event == 'begin' or event == 'seal' or event == 'stop' or event == 'end' then keep(ARGV[2]) end

local owed = {}
for _, what in ipairs({ 'catch', 'cancel', 'then', 'finally' }) do
  if field('said:' .. what) and not field('paid:' .. what) then owed[#owed + 1] = what end
end
return { call('HGETALL', STATE), call('HLEN', LEFT), owed, call('ZRANGE', FAILED, 0, -1) }
