-- Close the minutes of an hour that are over, each once: what was counted in them is added up, so that a reader needs
-- one short answer for a window of any length.
--
-- KEYS: see common.lua; then sums, minutes, hours, and the counters of the hour's 60 minutes. ARGV[1]: {hour}.
--   sums     STRING  job -> {minute of its first count, of its latest one, place, count, place, count ..} (msgpack): all
--                    that was counted up to the minute `rolled`; without the jobs that were not counted for nine days
--   minutes, HASH    '<minute or hour>' -> the counts of all jobs together, 78 numbers of 8 bytes, the lowest first;
--   hours            '<..>|<job>' -> {place, count, ..} (msgpack) of one job; '<..>b' -> `sums` as it was before.
--                    Two hours of minutes and eight days of hours, without those in which nothing was counted.
-- Places: 0..3 are ok, retry, dead, cancelled; from 4 on run times, from 41 on waiting times, by bucket.
-- Result: {now ms, the last minute that is closed, or -1 if the queue has never counted anything}.

local hour, last = arg[1], tonumber(call('HGET', CONF, 'rolled'))
if not last then return { now, -1 } end
local over = math.floor(now / 60000) - 2 -- later ones may still be written to
local first, final = math.max(last + 1, hour * 60), math.min(hour * 60 + 59, over)
if first ~= last + 1 or first > final then return { now, last } end
despite_memory()

local SUMS, MINUTES, HOURS, OPEN = KEYS[#KEYS - 62], KEYS[#KEYS - 61], KEYS[#KEYS - 60], #KEYS - 59 - hour * 60
local PLACES, RUN, WAIT, OUTCOMES = 78, 4, 41, { ok = 0, retry = 1, dead = 2, cancelled = 3 }
local FORMAT = '<' .. string.rep('I8', PLACES)
local MINUTES_KEPT, HOURS_KEPT, DAY = 120, 192, 86400
local packed = call('GET', SUMS) or '\128'
local sums = cmsgpack.unpack(packed)

local function dense(list, from)
  local counts = {}
  for at = from, #list, 2 do counts[list[at]] = list[at + 1] end
  return counts
end

-- The counts, appended to a list, in any order.
local function sparse(counts, list)
  local k = #list
  for place, n in pairs(counts) do
    list[k + 1], list[k + 2] = place, n
    k = k + 2
  end
  return list
end

local function add_to(counts, others)
  for place, n in pairs(others) do counts[place] = (counts[place] or 0) + n end
  return counts
end

-- What a minute's hash says: counts by job.
local function read(key)
  local flat, jobs = call('HGETALL', key), {}
  for at = 1, #flat, 2 do
    local kind, outcome, bucket, name = match(flat[at], '^(%a)|(%a*)|?(%d+)|(.*)$')
    local n, counts = tonumber(flat[at + 1]), jobs[name] or {}
    jobs[name] = counts
    local place = (kind == 'w' and WAIT or RUN) + bucket
    counts[place] = (counts[place] or 0) + n
    if kind == 'r' then
      place = OUTCOMES[outcome]
      counts[place] = (counts[place] or 0) + n
    end
  end
  return jobs
end

local function add_to_sums(minute, jobs)
  for name, counts in pairs(jobs) do
    local list = sums[name] or { minute, minute }
    sums[name] = sparse(add_to(dense(list, 3), counts), { list[1], minute })
  end
end

-- Add a minute's counts to its own record, or to that of its hour.
local function note(key, period, jobs, before)
  call('HSETNX', key, period .. 'b', before)
  local all, stored = {}, call('HGET', key, period)
  for name, counts in pairs(jobs) do
    local field = period .. '|' .. name
    local one = stored and call('HGET', key, field)
    call('HSET', key, field, cmsgpack.pack(sparse(add_to(one and dense(cmsgpack.unpack(one), 1) or {}, counts), {})))
    add_to(all, counts)
  end
  local numbers = stored and { struct.unpack(FORMAT, stored) } or {}
  for place = 0, PLACES - 1 do numbers[place + 1] = (numbers[place + 1] or 0) + (all[place] or 0) end
  call('HSET', key, period, struct.pack(FORMAT, unpack(numbers, 1, PLACES)))
end

local function drop(key, from, to)
  local fields = {}
  for period = from, to do
    fields[#fields + 1], fields[#fields + 2] = period, period .. 'b'
    for name in pairs(sums) do fields[#fields + 1] = period .. '|' .. name end
  end
  each('HDEL', key, fields)
end

if call('EXISTS', MINUTES) == 1 then drop(MINUTES, first - MINUTES_KEPT, final - MINUTES_KEPT) end
if call('EXISTS', HOURS) == 1 then drop(HOURS, hour - HOURS_KEPT, hour - HOURS_KEPT) end
if call('EXISTS', unpack(KEYS, OPEN + first, OPEN + final)) > 0 then
  for minute = first, final do
    local jobs = read(KEYS[OPEN + minute])
    if next(jobs) then
      note(MINUTES, minute, jobs, packed)
      note(HOURS, hour, jobs, packed)
      add_to_sums(minute, jobs)
      packed = cmsgpack.pack(sums)
      call('EXPIRE', KEYS[OPEN + minute], 600) -- for who began to read before
    end
  end
  for name, list in pairs(sums) do
    if list[2] < final - 9 * 1440 then sums[name] = nil end
  end
  call('SET', SUMS, next(sums) and cmsgpack.pack(sums) or '\128', 'EX', 10 * DAY)
  call('EXPIRE', MINUTES, 4 * 3600)
  call('EXPIRE', HOURS, 9 * DAY)
end
call('HSET', CONF, 'rolled', final)
return { now, final }
