-- Housekeeping, about once a second by each worker: renew leases, bring what is due or expired back to its line.
--
-- KEYS, ARGV[2]: see common.lua. ARGV[1]: {worker, lease ms, ids, fences, crashes allowed, sweep, prune}.
-- sweep: look for ready jobs of which no waiting worker was told, too. prune: nothing, or {keep done for ms, keep dead
-- for ms, keep dead at most}: forget what is too old, too.
-- Result: {now ms, next due ms or -1, ids whose lease is lost, ids to cancel, length of the outbox, ids given up}.

local worker, lease, ids, fences, allowed = arg[1], arg[2], arg[3], arg[4], arg[5]

local function renew()
  local held, leases, lost, seen = call('HMGET', ACTIVE, unpack(ids)), {}, {}, {}
  for i = 1, #ids do
    local fence = string.format('%d', fences[i])
    if held[i] and sub(held[i], 2) == fence .. ':' .. worker then
      if not seen[fence] then leases[#leases + 1], leases[#leases + 2] = now + lease, fence end
      seen[fence] = true
    else
      lost[#lost + 1] = ids[i]
    end
  end
  if #leases > 0 then
    despite_memory()
    call('ZADD', LEASES, 'XX', unpack(leases))
  end
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

local buried = {} -- what died here; this answer alone tells of it
local function give_up(id, mark, reason, attempts, crashes)
  settle(id, mark, true, true, true)
  bury(id, mark, attempts, crashes, '|gravito.errors.ProcessDiedError')
  call('HSET', NOTES, id, cmsgpack.pack({ reason = reason }))
  call('HINCRBY', TOTALS, 'dead', 1)
  tell({ id, 'dead' })
  buried[#buried + 1] = id
end

local function recover(id, mark)
  local attempts, crashes = tries_of(id)
  crashes = crashes + 1
  call('HSET', TRIES, id, attempts .. ':' .. crashes)
  call('HINCRBY', TOTALS, 'crashed', 1)
  if call('SREM', CANCELS, id) == 1 then
    settle(id, mark, true, true)
    forget(id)
    call('HINCRBY', TOTALS, 'cancelled', 1)
    tell({ id, 'cancelled' })
  elseif crashes >= allowed then
    give_up(id, mark, 'its worker died ' .. crashes .. ' times', attempts, crashes)
  else
    settle(id, mark, true, false)
    add(mark .. id, true)
  end
end

-- A lease that ended unseen ended while nobody could renew it: the server was away, or all workers were. Who comes back
-- first must not take the jobs of the others, so each gets some time more, once: half a millisecond marks that.
local UNSEEN = 3000 -- ms; several times what lies between two calls

local function give_time(fence)
  despite_memory()
  call('ZADD', LEASES, now + math.floor(lease / 2) + 0.5, fence)
end

-- The jobs of a claim whose lease has ended; how many there were.
local function take_back(fence)
  local all, mine, marks = words(call('HGET', CLAIMS, fence) or ''), {}, {}
  local held = #all > 0 and call('HMGET', ACTIVE, unpack(all)) or {}
  for i = 1, #all do -- the others have ended, or somebody else has them
    if held[i] and match(held[i], '^.(%d+):') == fence then
      mine[#mine + 1], marks[#marks + 1] = all[i], sub(held[i], 1, 1)
    end
  end
  call('ZREM', LEASES, fence)
  call('HDEL', CLAIMS, fence)
  each('HDEL', ACTIVE, mine)
  for i = 1, #mine do recover(mine[i], marks[i]) end
  return #mine
end

local function expire()
  local first = call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')
  if not first[2] or tonumber(first[2]) > now then return end
  local late, count = call('ZRANGEBYSCORE', LEASES, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 500), 0
  for at = 1, #late, 2 do
    local fence, ended = late[at], tonumber(late[at + 1])
    if now - ended > UNSEEN and ended % 1 == 0 then
      give_time(fence)
    elseif count < 500 then
      count = count + take_back(fence)
    end
  end
end

local function drop_dead(ids)
  for i = 1, #ids do forget(ids[i]) end
  each('ZREM', DEAD, ids)
end

-- Of some entries of a hash, drawn by lot, those that `old` says may go.
local function prune_hash(key, old)
  local drawn, gone = call('HRANDFIELD', key, 50, 'WITHVALUES'), {}
  for i = 1, #drawn, 2 do
    if old(drawn[i], drawn[i + 1]) then gone[#gone + 1] = drawn[i] end
  end
  each('HDEL', key, gone)
end

local function prune(done_age, dead_age, dead_most)
  local done = call('ZRANGEBYSCORE', DONE, '-inf', now - done_age, 'LIMIT', 0, MOST)
  each('ZREM', DONE, done)
  each('HDEL', RESULTS, done)
  drop_dead(call('ZRANGEBYSCORE', DEAD, '-inf', now - dead_age, 'LIMIT', 0, 100))
  local over = call('ZCARD', DEAD) - dead_most
  if over > 0 then drop_dead(call('ZRANGE', DEAD, 0, math.min(over, 100) - 1)) end
  local hour_ago = now - 3600000
  prune_hash(PRODUCERS, function(_, value) return tonumber(match(value, '^%d+:(%d+)')) < hour_ago end)
  prune_hash(STEPS, function(_, value) return tonumber(match(value, '^%d+:%d+:(%d+)')) < hour_ago end)
  prune_hash(LIMITS, function(name, value) return sub(name, 1, 1) == 'r' and tonumber(value) < now end)
  if call('EXISTS', FAIR) == 0 then
    call('DEL', VT)
  else
    local last = tonumber(call('HGET', VT, '') or 0)
    prune_hash(VT, function(name, value) return name ~= '' and tonumber(value) < last end)
  end
end

-- Parked jobs that nobody lets go on: the limit was raised, or who was let go on in their place went away.
local function check_parked()
  local spot = call('ZRANGE', PARKED, 0, 0)[1]
  for _ = 1, 50 do
    if not spot then return end
    local name, id = match(spot, '^(%Z*)%z%d+%z.(.*)$')
    for _, limit in ipairs(route_of(id).limits or {}) do
      if limit[1] == name and limit[2] == 'c' then
        local room = limit[3] - tonumber(call('HGET', LIMITS, 'c' .. name) or 0)
        if room > 0 then unpark(name, room) end
      elseif limit[1] == name and not call('ZSCORE', DELAYED, 'L' .. name) then
        reopen(name)
      end
    end
    spot = call('ZRANGEBYLEX', PARKED, '(' .. name .. '\1', '+', 'LIMIT', 0, 1)[1]
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
if arg[6] and ready() > 0 then wake() end
local outbox = 0
if arg[7] then
  prune(unpack(arg[7]))
  check_parked()
  flush()
  outbox = call('LLEN', OUTBOX)
end
return { now, due or -1, lost, cancel, outbox, buried }
