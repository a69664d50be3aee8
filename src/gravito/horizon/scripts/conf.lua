-- Change what is set for the queue, and tell its workers.
--
-- KEYS, ARGV[2]: see common.lua. ARGV[1]: {field, value or false}; false takes the field away.
-- Result: {now ms, what was set before, or ''}.

despite_memory()
local before = call('HGET', CONF, arg[1]) or ''
if arg[2] then
  call('HSET', CONF, arg[1], arg[2])
else
  call('HDEL', CONF, arg[1])
  wake()
end
call('PUBLISH', ARGV[2] .. 'ctl', arg[1] .. ' ' .. (arg[2] or ''))
return { now, before }
