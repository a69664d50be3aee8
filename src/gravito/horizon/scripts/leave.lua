-- A worker or a producer goes: nobody will repeat its last call.
--
-- KEYS: see common.lua. ARGV[1]: {workers, clients}.
-- Result: {now ms}.

each('HDEL', STEPS, arg[1])
each('HDEL', PRODUCERS, arg[2])
return { now }
