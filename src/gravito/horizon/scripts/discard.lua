-- Forget jobs that are dead, or have ended.
--
-- KEYS: see common.lua. ARGV[1]: {ids}.
-- Result: {now ms, ids that are forgotten}.

local gone = {}
for _, id in ipairs(arg[1]) do
  if call('ZREM', DEAD, id) == 1 then
    forget(id)
    gone[#gone + 1] = id
  elseif call('HDEL', RESULTS, id) == 1 then
    call('ZREM', DONE, id)
    gone[#gone + 1] = id
  end
end
return { now, gone }
