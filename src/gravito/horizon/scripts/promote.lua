-- Delayed jobs run now.
--
-- KEYS: see common.lua. ARGV[1]: {ids}.
-- Result: {now ms, ids that were delayed and are ready}.

local ready = {}
for _, id in ipairs(arg[1]) do
  for _, member in ipairs({ members_of(id) }) do
    if call('ZREM', DELAYED, member) == 1 then
      add(member)
      ready[#ready + 1] = id
      break
    end
  end
end
flush()
return { now, ready }
