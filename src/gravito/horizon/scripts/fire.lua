-- Schedules fire: what a fire pushes goes to the outbox in the same moment as the fire is noted, so it happens once
-- however many schedulers run, and however long one of them was frozen.
--
-- KEYS: see common.lua (of the queue that schedules have to themselves); the last is
--   book HASH  schedule -> '<last fire in ms>:<digest of its plan>:<1 if paused>:<ms of the last fire that happened>:<id
--              of its job>'
-- ARGV[1]: list of {schedule, last it was seen with or '', digest, last from now on, ids, indexes in ARGV: entries for
--   the outbox}; one without entries only moves `last`.
-- Result: {now ms, for each 1 if it was taken, 0 if another scheduler was first}.

local BOOK = COUNTERS
local answer = { now }
for at, one in ipairs(arg) do
  local name, seen, digest, last, ids, entries = unpack(one, 1, 6)
  local before, _, paused, fired, id = match(call('HGET', BOOK, name) or '', '^(%d*):([^:]*):(%d*):(%d*):(.*)$')
  if (before or '') == seen then
    if #entries > 0 and paused ~= '1' then
      for n = 1, #entries do
        call('RPUSH', OUTBOX, string.format('%d:', call('HINCRBY', CONF, 'seq', 1)) .. ARGV[entries[n]])
      end
      fired, id = string.format('%.0f', now), ids[#ids]
    end
    call('HSET', BOOK, name, table.concat({ last, digest, paused or '', fired or '', id or '' }, ':'))
    answer[at + 1] = 1
  else
    answer[at + 1] = 0
  end
end
return answer
