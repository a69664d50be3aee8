-- Bring dead jobs back to their lines, with their tries forgotten.
--
-- KEYS: see common.lua. ARGV[1]: {ids, most, skip}; without ids the dead that died first, `most` of them behind the
-- first `skip`.
-- Result: {now ms, ids that are back, ids that another job's unique key keeps out, dead jobs that are left}.

local ids = arg[1] or call('ZRANGE', DEAD, arg[3], arg[3] + arg[2] - 1)
local back_again, held_out = {}, {}

local function revive(id)
  local mark = match(call('HGET', TRIES, id) or '', '^%d+:%d+:(.)') or '2'
  local route = PLAIN[mark] and route_of(id) or {}
  if route.unique then
    local till, by = match(call('HGET', UNIQUE, route.unique) or '', '^(%d+):(.*)$')
    if by and by ~= id and (till == '0' or tonumber(till) > now) then
      held_out[#held_out + 1] = id
      return
    end
  end
  call('ZREM', DEAD, id)
  unbury(id)
  call('HDEL', NOTES, id)
  if route.unique then call('HSET', UNIQUE, route.unique, '0:' .. id) end
  add(mark .. id)
  back_again[#back_again + 1] = id
end

for i = 1, #ids do
  if call('ZSCORE', DEAD, ids[i]) then revive(ids[i]) end
end
flush()
return { now, back_again, held_out, call('ZCARD', DEAD) }
