-- What all scripts of a queue begin with: the keys, the clock and the moves that several of them make.
--
-- KEYS, the same for each script (all in the queue's slot):
--   jobs       HASH  id -> body, opaque; live and dead jobs
--   ready:0..3 LIST  by priority (critical, high, default, low): '<id>', or '!<id>' of special jobs
--   delayed    ZSET  due ms; members, and 'L<limit>' for a rate limit that lets parked jobs go on
--   leases     ZSET  end of the lease in ms; fences of claims, of which each covers the jobs of one step
--   causes     HASH  '<job's name>|<class of error>' -> '<dead jobs>:<ms of the latest>:<its id>'; a thousand at most
--   claims     HASH  fence -> ids of the jobs that were claimed with it (parted by spaces)
--   active     HASH  id -> '<mark><fence>:<worker>'; running jobs
--   tries      HASH  id -> '<failed attempts>:<crashes>'; absent is 0:0; of the dead with ':<mark>:<cause>'
--   results    HASH  id -> 'o' or 'c' (ok, cancelled) and the record; ended jobs that are kept
--   done, dead ZSET  ms of the end; ids
--   notes      HASH  id -> what went wrong last, opaque
--   fair       ZSET  virtual time; members of ready jobs that have a tenant
--   vt         HASH  tenant -> virtual time of its last job; '' -> of the last one that was claimed
--   routes     HASH  id -> {tenant, unique, limits} (msgpack) of special jobs
--   limits     HASH  'c<limit>' -> jobs that run; 'r<limit>' -> theoretical arrival time in ms; 'waits' -> number of
--                    limits in delayed
--   parked     ZSET  score 0, '<limit>\0<seq>\0<member>': jobs that a limit holds back
--   spots      HASH  id -> its member of parked
--   unique     HASH  unique key -> '<until ms, or 0>:<id>'
--   cancels    SET   running jobs that somebody wants to end
--   gone       SET   ids that still have a member in a ready list, but no body
--   waiting    HASH  id -> clients (parted by spaces) that want to hear of its end
--   wake       LIST  at most one token, for workers that block
--   steps      HASH  worker -> its last step, '<worker>;wake' -> its last claim behind the wake token:
--                    '<serial>:<fence>:<ms>:<refused ids>'
--   producers  HASH  client -> its last push: '<serial>:<ms>:<answer>'
--   outbox     LIST  '<seq>:<entry>', for other slots
--   conf       HASH  paused, fence (counter of claims), seq (of parked jobs and the outbox), rolled (minute)
--   totals     HASH  outcome -> count
--   (the last) HASH  counters of this minute; only step.lua and keep.lua are given it
-- In delayed, fair and parked a member is '<mark><id>'; the mark is the priority, 0..3, or a..d for the same of special jobs: those that have an
-- entry in routes.
-- ARGV: 1 the call's own arguments (msgpack, bytes as its string type: the servers' decoder knows no other; one blob
--         costs both sides less than half of what as many arguments do); 2 what the queue's channels begin with; further
--         ones are a script's own.

local JOBS, DELAYED, LEASES, ACTIVE, TRIES, RESULTS = KEYS[1], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local DONE, DEAD, NOTES, FAIR, VT, ROUTES = KEYS[11], KEYS[12], KEYS[13], KEYS[14], KEYS[15], KEYS[16]
local LIMITS, PARKED, SPOTS, UNIQUE, CANCELS, GONE = KEYS[17], KEYS[18], KEYS[19], KEYS[20], KEYS[21], KEYS[22]
local WAITING, WAKE, STEPS, PRODUCERS, OUTBOX = KEYS[23], KEYS[24], KEYS[25], KEYS[26], KEYS[27]
local CONF, TOTALS, CLAIMS, CAUSES, COUNTERS = KEYS[28], KEYS[29], KEYS[30], KEYS[31], KEYS[32]

local call, sub, find, match = redis.call, string.sub, string.find, string.match
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local arg = cmsgpack.unpack(ARGV[1])

local PLAIN = { a = '0', b = '1', c = '2', d = '3' } -- priority of special marks
local MOST = 1000 -- values that one command is given; Lua's stack holds some thousands

-- A server without memory refuses the first write of a script if that needs memory, and none behind a write that does
-- not. (So it is in Redis 6.2, 7 and Valkey for scripts without a shebang; 6.2 knows no shebang.) What must go on then,
-- begins with this one, which changes nothing, or with another write of that kind.
local function despite_memory() call('HDEL', CONF, '') end

local function words(text)
  local list = {}
  for word in string.gmatch(text, '%S+') do list[#list + 1] = word end
  return list
end

-- Run a command on a list of any length.
local function each(name, key, values)
  local n = #values
  if n == 0 then return end
  if n <= MOST then return call(name, key, unpack(values)) end
  for from = 1, n, MOST do
    call(name, key, unpack(values, from, math.min(from + MOST - 1, n)))
  end
end

-- A token for a blocked worker, unless there is one.
local function wake()
  if call('LPUSH', WAKE, '1') > 1 then call('LPOP', WAKE) end -- mostly there is none, and somebody waits
end

-- How many of the lines have jobs.
local function ready() return call('EXISTS', KEYS[2], KEYS[3], KEYS[4], KEYS[5], FAIR) end

local function earliest()
  local first = call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) or nil
end

local function route_of(id)
  local packed = call('HGET', ROUTES, id)
  return packed and cmsgpack.unpack(packed) or {}
end

-- Ready jobs, collected by `add` and written by `flush`: at the end of their line, or in front of it.
local back, front, some = {}, {}, false
local WEIGHT = { ['0'] = 1 / 8, ['1'] = 1 / 4, ['2'] = 1 / 2, ['3'] = 1 } -- what a job costs its tenant

local function turn(member, priority, tenant, first)
  local last = tonumber(call('HGET', VT, '') or 0)
  local at = last
  if not first then
    at = math.max(last, tonumber(call('HGET', VT, 't' .. tenant) or 0)) + WEIGHT[priority]
    call('HSET', VT, 't' .. tenant, at)
  end
  call('ZADD', FAIR, at, member)
end

local function add(member, first, route)
  local mark = sub(member, 1, 1)
  local priority = PLAIN[mark] or mark
  some = true
  if PLAIN[mark] then
    route = route or route_of(sub(member, 2))
    if route.tenant then return turn(member, priority, route.tenant, first) end
  end
  local lines = first and front or back
  local entry = (PLAIN[mark] and '!' or '') .. sub(member, 2)
  local line = lines[priority]
  if line then line[#line + 1] = entry else lines[priority] = { entry } end
end

-- `quiet`: wake nobody for them.
local function flush(quiet)
  for priority, line in pairs(back) do each('RPUSH', KEYS[2 + priority], line) end
  for priority, line in pairs(front) do
    local reversed = {}
    for i = #line, 1, -1 do reversed[#reversed + 1] = line[i] end -- LPUSH puts the last one first
    each('LPUSH', KEYS[2 + priority], reversed)
  end
  back, front = {}, {}
  if some and not quiet then wake() end
  some = false
end

-- A rate limit's own entry among the delayed jobs. They are counted, for who wants the number of jobs.
local function come_back(name, at)
  call('HINCRBY', LIMITS, 'waits', call('ZADD', DELAYED, 'NX', at, 'L' .. name))
end

-- Hold a job back until `name` has room; a rate limit says when that is.
local function park(member, name, at)
  local spot = name .. '\0' .. string.format('%016d', call('HINCRBY', CONF, 'seq', 1)) .. '\0' .. member
  call('ZADD', PARKED, 0, spot)
  call('HSET', SPOTS, sub(member, 2), spot)
  if at then come_back(name, math.ceil(at)) end
end

local function parked_of(name, most)
  return call('ZRANGEBYLEX', PARKED, '[' .. name .. '\0', '(' .. name .. '\1', 'LIMIT', 0, most)
end

-- Let parked jobs try again, before others.
local function unpark(name, most)
  local spots = parked_of(name, most)
  for i = 1, #spots do
    local member = match(spots[i], '^%Z*%z%d+%z(.*)$')
    call('ZREM', PARKED, spots[i])
    call('HDEL', SPOTS, sub(member, 2))
    add(member, true)
  end
end

-- {earliest next start in ms, its arrival time} of a rate limit {name, 'r', limit, per ms}: GCRA.
local function rate(limit)
  local arrival = math.max(now, tonumber(call('HGET', LIMITS, 'r' .. limit[1]) or 0))
  return arrival - limit[4] + limit[4] / limit[3], arrival
end

-- A rate limit has room again: let as many go on as it takes, and come back for the others.
local function reopen(name)
  local spot = parked_of(name, 1)[1]
  if not spot then return end
  local route = route_of(match(spot, '^%Z*%z%d+%z.(.*)$'))
  for _, limit in ipairs(route.limits or {}) do
    if limit[1] == name and limit[2] == 'r' then
      local gap = limit[4] / limit[3]
      local start = rate(limit)
      local room = math.max(1, math.floor((now - start) / gap) + 1)
      unpark(name, room)
      if parked_of(name, 1)[1] then
        come_back(name, math.max(now + 1, math.ceil(start + room * gap)))
      end
      return
    end
  end
  unpark(name, 1)
end

-- Whether all limits of a claimed job have room: then it takes its share of each, else it is parked.
local function admit(member, limits)
  local arrivals = {}
  for i, limit in ipairs(limits) do
    if limit[2] == 'c' then
      if tonumber(call('HGET', LIMITS, 'c' .. limit[1]) or 0) >= limit[3] then
        park(member, limit[1])
        return false
      end
    else
      local start, arrival = rate(limit)
      if start > now then
        park(member, limit[1], start)
        return false
      end
      arrivals[i] = arrival + limit[4] / limit[3]
    end
  end
  for i, limit in ipairs(limits) do
    if limit[2] == 'c' then
      call('HINCRBY', LIMITS, 'c' .. limit[1], 1)
    else
      call('HSET', LIMITS, 'r' .. limit[1], string.format('%.3f', arrivals[i]))
    end
  end
  return true
end

-- A special job was claimed no longer (`ran`), or ended (`final`): what it held is free. Its route stays for the dead.
local function settle(id, mark, ran, final, keep)
  if not PLAIN[mark] then return end
  local route = route_of(id)
  for _, limit in ipairs(ran and route.limits or {}) do
    if limit[2] == 'c' then
      if call('HINCRBY', LIMITS, 'c' .. limit[1], -1) <= 0 then call('HDEL', LIMITS, 'c' .. limit[1]) end
      unpark(limit[1], 1)
    end
  end
  if not final then return end
  if route.unique and match(call('HGET', UNIQUE, route.unique) or '', '^%d+:(.*)$') == id then
    call('HDEL', UNIQUE, route.unique)
  end
  if not keep then call('HDEL', ROUTES, id) end
end

-- What is due goes to its line, at most `most` of it. Gives the next due time.
local function release_due(most)
  local due = earliest()
  if not due or due > now then return due end
  local members = call('ZRANGEBYSCORE', DELAYED, '-inf', now, 'LIMIT', 0, most)
  each('ZREM', DELAYED, members)
  for i = 1, #members do
    if sub(members[i], 1, 1) == 'L' then
      if call('HINCRBY', LIMITS, 'waits', -1) <= 0 then call('HDEL', LIMITS, 'waits') end
      reopen(sub(members[i], 2))
    else
      add(members[i])
    end
  end
  return earliest()
end

-- Tell the clients that wait for these jobs, {id, state, ...}, that they ended.
local function tell(ended)
  if #ended == 0 or call('EXISTS', WAITING) == 0 then return end
  for i = 1, #ended, 2 do
    local clients = call('HGET', WAITING, ended[i])
    if clients then
      call('HDEL', WAITING, ended[i])
      for client in string.gmatch(clients, '%S+') do
        call('PUBLISH', ARGV[2] .. 'r:' .. client, ended[i] .. ' ' .. ended[i + 1])
      end
    end
  end
end

-- Dead jobs are counted by what they died of: one more or less.
local function blame(cause, id, by)
  local count, at, latest = match(call('HGET', CAUSES, cause) or '0:0:', '^(%d+):(%d+):(.*)$')
  if count + by <= 0 then return call('HDEL', CAUSES, cause) end
  if by > 0 then at, latest = string.format('%.0f', now), id end
  call('HSET', CAUSES, cause, string.format('%d:%s:%s', count + by, at, latest))
end

-- A job died: it keeps its body, what is known of its tries, and its route.
local function bury(id, mark, attempts, crashes, cause)
  if call('HLEN', CAUSES) >= 1000 and call('HEXISTS', CAUSES, cause) == 0 then cause = '|' end -- it stays bounded
  call('ZADD', DEAD, now, id)
  call('HSET', TRIES, id, attempts .. ':' .. crashes .. ':' .. mark .. ':' .. cause)
  blame(cause, id, 1)
end

-- Forget a job's tries; one that is dead will be so no longer.
local function unbury(id)
  local cause = match(call('HGET', TRIES, id) or '', '^%d+:%d+:.:(.*)$')
  if cause then blame(cause, id, -1) end
  call('HDEL', TRIES, id)
end

local function tries_of(id)
  return match(call('HGET', TRIES, id) or '0:0', '^(%d+):(%d+)')
end

-- Results of ended jobs, {ms, id, ...}: no more than `keep` of them.
local function keep_results(ended, keep)
  each('ZADD', DONE, ended)
  local over = call('ZCARD', DONE) - keep
  if over <= 0 then return end
  local oldest, ids = call('ZPOPMIN', DONE, math.min(over, MOST)), {}
  for i = 1, #oldest, 2 do ids[#ids + 1] = oldest[i] end
  each('HDEL', RESULTS, ids)
end

local function members_of(id)
  return '0' .. id, '1' .. id, '2' .. id, '3' .. id, 'a' .. id, 'b' .. id, 'c' .. id, 'd' .. id
end

-- Forget a job that is not running. `line`: it may have a member in a ready list.
local function forget(id, line)
  if call('HEXISTS', ROUTES, id) == 1 then
    local limits = line and route_of(id).limits or {}
    settle(id, 'a', false, true)
    for _, limit in ipairs(limits) do unpark(limit[1], 1) end -- it may have been let go on in place of others
  end
  call('HDEL', JOBS, id)
  unbury(id)
  call('HDEL', NOTES, id)
  if line then call('SADD', GONE, id) end
end

local function exceptional(ids, extra)
  -- By index: '' for an id that the queue has, the holder's id for a unique key that is held; and the keys to hold.
  local odd, holds, here = {}, {}, {}
  local live = call('HMGET', JOBS, unpack(ids))
  local kept = (#ids == 1 or call('EXISTS', RESULTS) == 1) and call('HMGET', RESULTS, unpack(ids)) or {}
  for i = 1, #ids do
    local id, e = ids[i], extra[i]
    if live[i] or kept[i] or here[id] then
      odd[i] = ''
    elseif e and e[3] then
      local till, by = match(holds[e[3]] or call('HGET', UNIQUE, e[3]) or '', '^(%d+):(.*)$')
      if by and by ~= id and (till == '0' or tonumber(till) > now) then
        odd[i] = by
      else
        holds[e[3]] = (e[4] > 0 and string.format('%.0f', now + e[4]) or '0') .. ':' .. id
      end
    end
    if not odd[i] then here[id] = true end
  end
  return odd, holds
end

-- An id that was cancelled has a member in a line still: it must not bring the new job twice.
local function clear_lines(ids)
  if call('EXISTS', GONE) == 0 then return end
  for _, id in ipairs(ids) do
    if call('SREM', GONE, id) == 1 then
      for line = 0, 3 do
        call('LREM', KEYS[2 + line], 0, id)
        call('LREM', KEYS[2 + line], 0, '!' .. id)
      end
    end
  end
end

-- Take new jobs in. `marks` has a letter for each id, or one for all; `bodies` stand beside them; `extra`
-- holds by index what few have: {due ms or false, delay ms, unique or false, unique_for ms, tenant or false, limits or
-- false}. Gives the exceptions: {index, '' or the holder's id, ...}.
local function take(ids, marks, bodies, extra)
  local n = #ids
  if n == 0 then return {} end
  local odd, holds = exceptional(ids, extra)
  local new, fresh, routes, delayed, lines, flat = {}, {}, {}, {}, {}, {}
  local first, sooner, same = nil, false, #marks == 1
  for i = 1, n do
    local id = ids[i]
    if odd[i] then
      flat[#flat + 1], flat[#flat + 2] = i, odd[i]
    else
      local k = #fresh + 1
      fresh[k], new[2 * k - 1], new[2 * k] = id, id, bodies[i]
      local e, mark = extra[i], same and marks or sub(marks, i, i)
      local due = e and (e[1] or (e[2] > 0 and now + e[2]))
      local route = PLAIN[mark] and { unique = e[3] or nil, tenant = e[5] or nil, limits = e[6] or nil }
      if route then routes[#routes + 1], routes[#routes + 2] = id, cmsgpack.pack(route) end
      if due and due > now then
        delayed[#delayed + 1], delayed[#delayed + 2] = due, mark .. id
        first = first or earliest() or due + 1
        if due < first then first, sooner = due, true end
      elseif route then
        lines[#lines + 1] = { mark .. id, route }
      else
        local line = back[mark]
        if line then line[#line + 1] = id else back[mark] = { id } end
        some = true
      end
    end
  end
  if #fresh == 0 then return flat end
  each('HSET', JOBS, new) -- a server without memory refuses this one: then nothing was written
  each('HSET', ROUTES, routes)
  for key, value in pairs(holds) do call('HSET', UNIQUE, key, value) end
  each('ZADD', DELAYED, delayed)
  clear_lines(fresh)
  for i = 1, #lines do add(lines[i][1], false, lines[i][2]) end
  call('HINCRBY', TOTALS, 'pushed', #fresh)
  flush()
  if sooner then wake() end
  return flat
end
