-- Housekeeping, about once a second by each worker: renew leases, bring what is due or expired back to its line.
--
-- KEYS, ARGV[2]: see common.lua. ARGV[1]: {worker, lease ms, ids, fences, crashes allowed, thorough, keep done for ms,
-- keep dead for ms, keep dead at most}; `thorough`: prune, too.
-- Result: {now ms, next due ms or -1, ids whose lease is lost, ids to cancel, length of the outbox}.

local worker, lease, ids, fences, allowed = arg[1], arg[2], arg[3], arg[4], arg[5]

local function renew()
  local held, leases, lost = call('HMGET', ACTIVE, unpack(ids)), {}, {}
  for i = 1, #ids do
    if held[i] and sub(held[i], 2) == string.format('%d', fences[i]) .. ':' .. worker then
      leases[#leases + 1] = now + lease
      leases[#leases + 1] = ids[i]
    else
      lost[#lost + 1] = ids[i]
    end
  end
  call('HDEL', ACTIVE, '') -- changes nothing; a script whose first write needs no memory may go on without
  if #leases > 0 then call('ZADD', LEASES, 'XX', unpack(leases)) end
  return lost
end

local function asked_to_end()
  local some = {}
  if call('EXISTS', CANCELS) == 0 then return some end
  local asked = call('SMISMEMBER', CANCELS, unpack(ids))
  for i = 1, #ids do
    if asked[i] == 1 then some[#some + 1] = ids[i] end
  end
  return some
end

local function give_up(id, mark, reason)
  settle(id, mark, true, true, true)
  call('ZADD', DEAD, now, id)
  call('HSET', NOTES, id, cmsgpack.pack({ reason = reason }))
  call('HINCRBY', TOTALS, 'dead', 1)
  tell({ id, 'dead' })
end

local function recover(id, mark)
  local attempts, crashes = match(call('HGET', TRIES, id) or '0:0', '^(%d+):(%d+)$')
  crashes = crashes + 1
  call('HSET', TRIES, id, attempts .. ':' .. crashes)
  call('HINCRBY', TOTALS, 'crashed', 1)
  if call('SREM', CANCELS, id) == 1 then
    settle(id, mark, true, true)
    call('HDEL', JOBS, id)
    call('HDEL', TRIES, id)
    call('HDEL', NOTES, id)
    call('HINCRBY', TOTALS, 'cancelled', 1)
    tell({ id, 'cancelled' })
  elseif crashes >= allowed then
    give_up(id, mark, 'its worker died ' .. crashes .. ' times')
  else
    settle(id, mark, true, false)
    add(mark .. id, true)
  end
end

local function expire()
  local first = call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')
  if not first[2] or tonumber(first[2]) > now then return end
  local late = call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, MOST)
  local held = call('HMGET', ACTIVE, unpack(late))
  call('ZREM', LEASES, unpack(late))
  call('HDEL', ACTIVE, unpack(late))
  for i = 1, #late do
    if held[i] then recover(late[i], sub(held[i], 1, 1)) end
  end
end

local lost, cancel = {}, {}
if #ids > 0 then
  lost = renew()
  cancel = asked_to_end()
end
local due = release_due(MOST)
expire()
flush()
if call('EXISTS', KEYS[2], KEYS[3], KEYS[4], KEYS[5], FAIR) > 0 then wake() end
local outbox = 0
if arg[6] then outbox = call('LLEN', OUTBOX) end
return { now, due or -1, lost, cancel, outbox }
