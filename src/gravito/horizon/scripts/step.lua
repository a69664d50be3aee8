-- A worker's step: finish jobs, then claim jobs. Repeating a call with the same serial changes nothing and gives the
-- same answer.
--
-- KEYS: see common.lua; the last are the counters of the minute. ARGV[2]: see common.lua. ARGV[1]:
-- {worker, serial, lease ms, want, keep, done, name, free}; keep: ended jobs to keep at most; free: jobs to claim at
-- most while some that have a tenant are in line, since these take turns for places, not for a worker's buffer; name: under which the serials
-- are counted, since a worker has a claim waiting behind its wake token while it makes steps. With nothing to do (no
-- done, want 0) it gives the answer of the call with that serial; if none came, that one will claim nothing any more.
--   done: {ids, fences, outcomes, records, groups, counts, fields, more, closed} or nothing.
--     fences: for each, or one number for all
--     outcomes: a letter for each: o ok, r retry, d dead, l release, c cancelled; '' if all are o
--     records: for each, '' for none; those of o and c begin with that letter. An empty list: none at all
--     groups: for each, the index in `counts` and `fields` of what it counts as; counts: how many are of each group;
--     fields: of each group, the list of counters
--     more: by index, {delay ms, {ids, marks, bodies, extra} to push or false, list of entries for the outbox,
--       cause of a death}
--     closed: fences of which the worker has no more jobs
-- Result: {now ms, next due ms or -1, fence, ids (parted by spaces), bodies, {index, attempts, crashes, note, ...},
--   refused ids (parted by spaces), length of the outbox if it grew}; {now ms} for a serial that was overtaken.
-- The first write is always one that needs no memory: see despite_memory.

local worker, serial, lease, want, keep, done, name = unpack(arg, 1, 7)

local function answer(due, fence, ids, joined, bodies, refused, outbox)
  local odd = {}
  if #ids > 0 and call('EXISTS', TRIES) == 1 then
    local tries, notes = call('HMGET', TRIES, unpack(ids)), call('HMGET', NOTES, unpack(ids))
    for i = 1, #ids do
      if tries[i] then
        local attempts, crashes = match(tries[i], '^(%d+):(%d+)')
        local at = #odd
        odd[at + 1], odd[at + 2], odd[at + 3], odd[at + 4] = i - 1, tonumber(attempts), tonumber(crashes), notes[i] or ''
      end
    end
  end
  return { now, due or -1, fence, joined, bodies, odd, refused, outbox }
end

local before = call('HGET', STEPS, name)
if before then
  local last, fence, refused = match(before, '^(%d+):(%d+):%d+:(.*)$')
  last = tonumber(last)
  if last > serial then return { now } end
  if last == serial then
    local joined = call('HGET', CLAIMS, fence) or ''
    local ids = words(joined)
    local bodies = #ids > 0 and call('HMGET', JOBS, unpack(ids)) or {}
    return answer(earliest(), tonumber(fence), ids, joined, bodies, refused, call('LLEN', OUTBOX))
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
  if more[2] then take(unpack(more[2], 1, 4)) end
  for _, entry in ipairs(more[3] or {}) do
    outbox = call('RPUSH', OUTBOX, string.format('%d:', call('HINCRBY', CONF, 'seq', 1)) .. entry)
  end
end

local function count(counts, fields, totals)
  local sums, fresh = {}, false
  for group = 1, #counts do
    for _, field in ipairs(counts[group] > 0 and fields[group] or {}) do
      sums[field] = (sums[field] or 0) + counts[group]
    end
  end
  for field, n in pairs(sums) do
    if call('HINCRBY', COUNTERS, field, n) == n then fresh = true end
  end
  if fresh then -- it stays until roll.lua has added it to its hour, though no worker may be there for days
    call('EXPIRE', COUNTERS, 8 * 86400)
    call('HSETNX', CONF, 'rolled', match(COUNTERS, '(%d+)$') - 1)
  end
  local said = worker
  for outcome, n in pairs(totals) do
    call('HINCRBY', TOTALS, NAMES[outcome], n)
    said = said .. ' ' .. NAMES[outcome] .. '=' .. n
  end
  call('PUBLISH', ARGV[2] .. 'ev', said)
end

-- Which completions are of claims that hold: their indexes, or nothing if all are; and whether a special job is among
-- them. A value of `active` tells the claim, so each is read once.
local function accept(ids, fences, held)
  local known, special, bad = {}, false, false
  local same = type(fences) == 'number' and fences
  for i = 1, #ids do
    local value = held[i]
    local fence = known[value]
    if fence == nil and value then
      local mark, number, by = match(value, '^(.)(%d+):(.*)$')
      fence = by == worker and tonumber(number) or 0
      known[value] = fence
      if PLAIN[mark] then special = true end
    end
    if fence ~= (same or fences[i]) or not value then bad = true end
  end
  if not bad then return nil, special end
  local accepted, seen = {}, {}
  for i = 1, #ids do
    if held[i] and known[held[i]] == (same or fences[i]) and not seen[ids[i]] then
      accepted[#accepted + 1], seen[ids[i]] = i, true
    else
      refused[#refused + 1] = ids[i]
    end
  end
  return accepted, special
end

local function forget_all(ids)
  if #ids == 0 then return end
  each('HDEL', JOBS, ids)
  if call('EXISTS', TRIES) == 1 then each('HDEL', TRIES, ids) end
  if call('EXISTS', NOTES) == 1 then each('HDEL', NOTES, ids) end
end

-- All jobs are plain, ok and nobody waits for them: nothing to decide for each.
local function finish_plain(ids, records)
  forget_all(ids)
  if #records == 0 then return { o = #ids } end
  local kept, ended, k = {}, {}, 0
  for i = 1, #ids do
    local record = records[i]
    if record ~= '' then
      kept[k + 1], kept[k + 2], ended[k + 1], ended[k + 2] = ids[i], record, now, ids[i]
      k = k + 2
    end
  end
  each('HSET', RESULTS, kept)
  if k > 0 then keep_results(ended, keep) end
  return { o = #ids }
end

-- Jobs of any kind and outcome. `accepted`: indexes; `held`: by index.
local function finish_each(accepted, held, done_)
  local ids, _, outcomes, records, _, _, _, extras = unpack(done_, 1, 8)
  local mine, cancels = {}, nil
  for n = 1, #accepted do mine[n] = ids[accepted[n]] end
  if call('EXISTS', CANCELS) == 1 then
    cancels = call('SMISMEMBER', CANCELS, unpack(mine))
    call('SREM', CANCELS, unpack(mine))
  end
  local over, kept, ended, told, totals = {}, {}, {}, {}, {}
  for n = 1, #accepted do
    local i, id = accepted[n], mine[n]
    local outcome, mark, more = outcomes == '' and 'o' or sub(outcomes, i, i), sub(held[i], 1, 1), extras[i]
    local record = records[i] ~= '' and records[i] or nil
    if cancels and cancels[n] == 1 and (outcome == 'r' or outcome == 'l') then
      outcome, record = 'c', record and 'c' .. record
    end
    local final = outcome ~= 'r' and outcome ~= 'l'
    settle(id, mark, true, final, outcome == 'd')
    if outcome == 'o' or outcome == 'c' then
      over[#over + 1] = id
      if record then
        kept[#kept + 1], kept[#kept + 2], ended[#ended + 1], ended[#ended + 2] = id, record, now, id
      end
    elseif outcome == 'd' then
      local attempts, crashes = tries_of(id)
      bury(id, mark, attempts + 1, crashes, more and more[4] or '|')
      note(id, record)
    else
      try_again(id, mark .. id, outcome, more and more[1] or 0, record)
    end
    if final then told[#told + 1], told[#told + 2] = id, NAMES[outcome] end
    if more then push_along(more) end
    totals[outcome] = (totals[outcome] or 0) + 1
  end
  forget_all(over)
  each('HSET', RESULTS, kept)
  if #ended > 0 then keep_results(ended, keep) end
  tell(told)
  return totals
end

local function finish()
  local ids, fences, outcomes, records, groups, counts, fields, extras, closed = unpack(done, 1, 9)
  local held = call('HMGET', ACTIVE, unpack(ids))
  local accepted, special = accept(ids, fences, held)
  local totals
  if not accepted then
    if call('HDEL', ACTIVE, unpack(ids)) < #ids then -- some are here twice
      local known = {}
      accepted = {}
      for i = 1, #ids do
        if known[ids[i]] then refused[#refused + 1] = ids[i] else accepted[#accepted + 1] = i end
        known[ids[i]] = true
      end
    end
  else
    local mine = {}
    for n = 1, #accepted do mine[n] = ids[accepted[n]] end
    each('HDEL', ACTIVE, mine)
  end
  each('ZREM', LEASES, closed)
  each('HDEL', CLAIMS, closed)
  if not accepted and not special and outcomes == '' and next(extras) == nil and call('EXISTS', CANCELS, WAITING) == 0 then
    totals = finish_plain(ids, records)
  else
    if not accepted then
      accepted = {}
      for i = 1, #ids do accepted[i] = i end
    elseif #accepted < #ids then
      counts = {}
      for group = 1, #fields do counts[group] = 0 end
      for n = 1, #accepted do
        local group = groups[accepted[n]]
        counts[group] = counts[group] + 1
      end
    end
    if #accepted == 0 then return end
    totals = finish_each(accepted, held, done)
  end
  count(counts, fields, totals)
end

-- Members of a line, at most n; `dry` notes the lines that have no more. 4 is the line of jobs with a tenant.
local dry, left = {}, 0 -- left: lines that have jobs
local function pop(line, n)
  if left == 0 or dry[line] or n <= 0 then return {} end
  local got
  if line == 4 then
    local pairs_of = call('ZPOPMIN', FAIR, n)
    got = {}
    for i = 1, #pairs_of, 2 do got[#got + 1] = pairs_of[i] end
    if #got > 0 then call('HSET', VT, '', pairs_of[#pairs_of]) end
  else
    got = call('LPOP', KEYS[2 + line], n) or {}
  end
  if #got < n then
    dry[line] = true
    if #got > 0 then left = left - 1 end
  end
  return got
end

local ids, bodies, active, fence, drawn, specials = {}, {}, {}, 0, 0, false
local LETTERS = { [0] = 'a', 'b', 'c', 'd' }

-- Claim what `got` has of a line: jobs that are gone, or have to park, are left out.
local function claim(got, line)
  if fence == 0 then fence = call('HINCRBY', CONF, 'fence', 1) end
  local tail = string.format('%d', fence) .. ':' .. worker
  local marks, members = nil, nil
  if line == 4 or specials then
    marks, members = {}, got
    got = {}
    for i = 1, #members do
      local first = sub(members[i], 1, 1)
      if line == 4 then
        marks[i], got[i] = first, sub(members[i], 2)
      elseif first == '!' then
        marks[i], got[i] = LETTERS[line], sub(members[i], 2)
      else
        marks[i], got[i] = line, members[i]
      end
    end
  end
  local found, value, gone = call('HMGET', JOBS, unpack(got)), line .. tail, {}
  local k = #ids
  for i = 1, #got do
    local id, body, mark = got[i], found[i], marks and marks[i]
    if not body then
      gone[#gone + 1] = id
    elseif not PLAIN[mark] or admit(mark .. id, route_of(id).limits or {}) then
      k = k + 1
      ids[k], bodies[k], active[2 * k - 1], active[2 * k] = id, body, id, mark and mark .. tail or value
    end
  end
  each('SREM', GONE, gone)
end

-- Most of a claim goes by priority. A tenth of it, or every eighth small claim, begins at a lower line, at another one
-- each time, so that none starves. Jobs with a tenant and others of the default priority go before each other in turn.
local MOST_SPECIAL = 64 -- they cost the server some times as much as others
local FEW = 10 -- so many are looked at one by one at less than it costs to ask if some are special
local HIGH_FIRST = serial % 2 == 0 and { 0, 1, 4, 2, 3 } or { 0, 1, 2, 4, 3 }
local LOW_FIRST = { 3, 2, 4, 1 }
local function collect(n)
  left = ready()
  if left == 0 then return end
  specials = n <= FEW or call('EXISTS', ROUTES) == 1
  if specials then n = math.min(n, MOST_SPECIAL) end
  if arg[8] < n and call('EXISTS', FAIR) == 1 then n = arg[8] end
  if n == 0 then return end
  local share = math.floor(n / 10)
  if share == 0 and serial % 8 == 0 then share = 1 end
  local function draw(line, most)
    local got = pop(line, most)
    drawn = drawn + #got
    if #got > 0 then claim(got, line) end
  end
  for _, line in ipairs(HIGH_FIRST) do draw(line, n - share - drawn) end
  for i = 0, 3 do draw(LOW_FIRST[(serial + i) % 4 + 1], n - drawn) end
  draw(0, n - drawn)
  if drawn == n and ready() > 0 then wake() end
end

if done then finish() end
local due
if want > 0 and call('HGET', CONF, 'paused') ~= '1' then
  due = release_due(MOST)
  flush(true) -- what is added is claimed by this very call, or wakes somebody behind it
  collect(want)
else
  due = earliest()
  if want == 0 and not done then -- whoever gave up waiting for a token may have taken one along
    despite_memory()
    if ready() > 0 then wake() end
  end
end
flush()
local joined = table.concat(ids, ' ')
if #ids > 0 then
  call('ZADD', LEASES, now + lease, fence)
  call('HSET', CLAIMS, fence, joined)
  each('HSET', ACTIVE, active)
else
  fence = 0
end
refused = table.concat(refused, ' ')
if done or #ids > 0 or want == 0 then
  call('HSET', STEPS, name, string.format('%d:%d:%.0f:', serial, fence, now) .. refused)
end
return answer(due, fence, ids, joined, bodies, refused, outbox)
