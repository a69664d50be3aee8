-- The outbox: entries that must reach another slot, oldest first. Each stays until somebody says that it arrived.
--
-- KEYS: see common.lua. ARGV[1]: {seq, most}; entries up to `seq` arrived.
-- Result: {now ms, '<seq>:<entry>' ...}.

while true do
  local first = call('LINDEX', OUTBOX, 0)
  if not first or tonumber(match(first, '^%d+')) > arg[1] then break end
  call('LPOP', OUTBOX)
end
return { now, unpack(call('LRANGE', OUTBOX, 0, arg[2] - 1)) }
