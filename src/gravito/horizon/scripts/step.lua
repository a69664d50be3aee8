-- A worker's step: finish jobs, then claim jobs. Repeating a call with the same serial changes nothing and gives the
-- same answer.
--
-- KEYS: see common.lua; the last are the counters of the minute. ARGV[2]: see common.lua. ARGV[1]:
-- {worker, serial, lease ms, want, keep, done}; keep: ended jobs to keep at most.
--   done: {ids, fences, outcomes, records, groups, fields, more} or nothing.
--     outcomes: a letter for each: o ok, r retry, d dead, l release, c cancelled
--     records: for each, the index in ARGV, or 0; groups: for each, the index in `fields` of what it counts as, a list of fields
--     more: by index, {delay ms, {members, base, extra} to push or false, list of indexes in ARGV: entries for
--     the outbox}
-- Result: {now ms, next due ms or -1, fence, ids (parted by spaces), bodies, {index, attempts, crashes, ...},
--   refused ids (parted by spaces), length of the outbox if it grew}; {now ms} for a serial that was overtaken.
-- The first write is always one that needs no memory: see despite_memory.

local worker, serial, lease, want, keep, done = arg[1], arg[2], arg[3], arg[4], arg[5], arg[6]

local function answer(due, fence, ids, bodies, refused, outbox)
  local odd = {}
  if #ids > 0 and call('EXISTS', TRIES) == 1 then
    local tries = call('HMGET', TRIES, unpack(ids))
    for i = 1, #ids do
      if tries[i] then
        local attempts, crashes = match(tries[i], '^(%d+):(%d+)')
        odd[#odd + 1], odd[#odd + 2], odd[#odd + 3] = i - 1, tonumber(attempts), tonumber(crashes)
      end
    end
  end
  return { now, due or -1, fence, table.concat(ids, ' '), bodies, odd, refused, outbox }
end

local before = call('HGET', STEPS, worker)
if before then
  local last, fence, refused, ids = match(before, '^(%d+):(%d+):%d+:([^;]*);(.*)$')
  last = tonumber(last)
  if last > serial then return { now } end
  if last == serial then
    local list = {}
    for id in string.gmatch(ids, '%S+') do list[#list + 1] = id end
    local bodies = #list > 0 and call('HMGET', JOBS, unpack(list)) or {}
    return answer(earliest(), tonumber(fence), list, bodies, refused, call('LLEN', OUTBOX))
  end
end

local refused, outbox = {}, 0
local NAMES = { o = 'ok', r = 'retry', d = 'dead', l = 'release', c = 'cancelled' }

local function note(id, record)
  if record then call('HSET', NOTES, id, record) end
end

local function try_again(id, member, outcome, delay, record)
  if outcome == 'r' then
    local attempts, crashes = tries_of(id)
    call('HSET', TRIES, id, (attempts + 1) .. ':' .. crashes)
    note(id, record)
  end
  if delay > 0 then
    call('ZADD', DELAYED, now + delay, member)
  else
    add(member, outcome == 'l')
  end
end

local function push_along(more)
  if more[2] then take(more[2][1], more[2][2], more[2][3]) end
  for _, entry in ipairs(more[3] or {}) do
    outbox = call('RPUSH', OUTBOX, string.format('%d:', call('HINCRBY', CONF, 'seq', 1)) .. ARGV[entry])
  end
end

local function count(groups, fields, totals)
  local sums, fresh = {}, false
  for group, n in pairs(groups) do
    for _, field in ipairs(fields[group]) do sums[field] = (sums[field] or 0) + n end
  end
  for field, n in pairs(sums) do
    if call('HINCRBY', COUNTERS, field, n) == n then fresh = true end
  end
  if fresh then call('EXPIRE', COUNTERS, 10800) end
  local said = worker
  for outcome, n in pairs(totals) do
    call('HINCRBY', TOTALS, NAMES[outcome], n)
    said = said .. ' ' .. NAMES[outcome] .. '=' .. n
  end
  call('PUBLISH', ARGV[2] .. 'ev', said)
end

local function finish(ids, fences, outcomes, records, kinds, fields, extras)
  local held = call('HMGET', ACTIVE, unpack(ids))
  local mine, accepted, marks, own = {}, {}, {}, {}
  for i = 1, #ids do
    local fence, value = fences[i], held[i]
    local token = own[fence]
    if not token then
      token = string.format('%d', fence) .. ':' .. worker
      own[fence] = token
    end
    if value and sub(value, 2) == token and not marks[ids[i]] then
      mine[#mine + 1] = ids[i]
      accepted[#accepted + 1] = i
      marks[ids[i]] = sub(value, 1, 1)
    else
      refused[#refused + 1] = ids[i]
    end
  end
  if #mine == 0 then return end
  call('ZREM', LEASES, unpack(mine))
  call('HDEL', ACTIVE, unpack(mine))
  local cancels
  if call('EXISTS', CANCELS) == 1 then
    cancels = call('SMISMEMBER', CANCELS, unpack(mine))
    call('SREM', CANCELS, unpack(mine))
  end
  local over, kept, ended, told, groups, totals = {}, {}, {}, {}, {}, {}
  for n = 1, #accepted do
    local i, id = accepted[n], mine[n]
    local outcome, mark, more = sub(outcomes, i, i), marks[id], extras[i]
    if cancels and cancels[n] == 1 and (outcome == 'r' or outcome == 'l') then outcome = 'c' end
    local record, final = ARGV[records[i]], outcome ~= 'r' and outcome ~= 'l'
    settle(id, mark, true, final, outcome == 'd')
    if outcome == 'o' or outcome == 'c' then
      over[#over + 1] = id
      if record then
        kept[#kept + 1], kept[#kept + 2] = id, outcome .. record
        ended[#ended + 1], ended[#ended + 2] = now, id
      end
    elseif outcome == 'd' then
      local attempts, crashes = tries_of(id)
      bury(id, mark, attempts + 1, crashes)
      note(id, record)
    else
      try_again(id, mark .. id, outcome, more and more[1] or 0, record)
    end
    if final then told[#told + 1], told[#told + 2] = id, NAMES[outcome] end
    if more then push_along(more) end
    local kind = kinds[i]
    if kind > 0 then groups[kind] = (groups[kind] or 0) + 1 end
    totals[outcome] = (totals[outcome] or 0) + 1
  end
  if #over > 0 then
    call('HDEL', JOBS, unpack(over))
    if call('EXISTS', TRIES) == 1 then call('HDEL', TRIES, unpack(over)) end
    if call('EXISTS', NOTES) == 1 then call('HDEL', NOTES, unpack(over)) end
  end
  each('HSET', RESULTS, kept)
  if #ended > 0 then keep_results(ended, keep) end
  tell(told)
  count(groups, fields, totals)
end

-- Members of a line, at most n; `dry` notes the lines that have no more.
local dry = {}
local function pop(line, n)
  if dry[line] or n <= 0 then return {} end
  local got
  if line == 4 then
    local pairs_of = call('ZPOPMIN', FAIR, n)
    got = {}
    for i = 1, #pairs_of, 2 do got[#got + 1] = pairs_of[i] end
    if #got > 0 then call('HSET', VT, '', pairs_of[#pairs_of]) end
  else
    got = call('LPOP', KEYS[2 + line], n) or {}
  end
  if #got < n then dry[line] = true end
  return got
end

-- Most of a claim goes by priority. A tenth of it, or every eighth small claim, begins at a lower line, at another one
-- each time, so that none starves. 4 is the line of jobs with a tenant.
local HIGH_FIRST, LOW_FIRST = { 0, 1, 4, 2, 3 }, { 3, 2, 4, 1 }
local function collect(n)
  local members = {}
  local share = math.floor(n / 10)
  if share == 0 and serial % 8 == 0 then share = 1 end
  local function draw(line, most)
    local got = pop(line, most)
    for i = 1, #got do members[#members + 1] = got[i] end
  end
  for _, line in ipairs(HIGH_FIRST) do draw(line, n - share - #members) end
  for i = 0, 3 do draw(LOW_FIRST[(serial + i) % 4 + 1], n - #members) end
  draw(0, n - #members)
  return members
end

local function claim()
  local members = collect(want)
  if #members == 0 then return {}, {}, {} end
  local all = {}
  for i = 1, #members do all[i] = sub(members[i], 2) end
  local found = call('HMGET', JOBS, unpack(all))
  local ids, bodies, marks, gone = {}, {}, {}, {}
  for i = 1, #all do
    local mark = sub(members[i], 1, 1)
    if not found[i] then
      gone[#gone + 1] = all[i]
    elseif not PLAIN[mark] or admit(members[i], route_of(all[i]).limits or {}) then
      ids[#ids + 1], bodies[#bodies + 1], marks[#marks + 1] = all[i], found[i], mark
    end
  end
  each('SREM', GONE, gone)
  if #members == want and call('EXISTS', KEYS[2], KEYS[3], KEYS[4], KEYS[5], FAIR) > 0 then wake() end
  return ids, bodies, marks
end

local function lease_out(ids, marks)
  local fence = call('HINCRBY', CONF, 'fence', 1)
  local ends, tail = now + lease, string.format('%d', fence) .. ':' .. worker
  local leases, active, values = {}, {}, {}
  for i = 1, #ids do
    local mark, at = marks[i], 2 * i
    local value = values[mark]
    if not value then
      value = mark .. tail
      values[mark] = value
    end
    leases[at - 1], leases[at], active[at - 1], active[at] = ends, ids[i], ids[i], value
  end
  each('ZADD', LEASES, leases)
  each('HSET', ACTIVE, active)
  return fence
end

if done then finish(unpack(done, 1, 7)) end
local due, fence, ids, bodies, marks = nil, 0, {}, {}, {}
if want > 0 and call('HGET', CONF, 'paused') ~= '1' then
  due = release_due(MOST)
  flush()
  ids, bodies, marks = claim()
  if #ids > 0 then fence = lease_out(ids, marks) end
else
  due = earliest()
end
flush()
refused = table.concat(refused, ' ')
if done or #ids > 0 then
  call('HSET', STEPS, worker, string.format('%d:%d:%.0f:', serial, fence, now) .. refused .. ';' .. table.concat(ids, ' '))
end
return answer(due, fence, ids, bodies, refused, outbox)
