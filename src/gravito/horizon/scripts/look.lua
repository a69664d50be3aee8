-- Where jobs are. Changes nothing.
--
-- KEYS: see common.lua. ARGV[1]: {ids}.
-- Result: {now ms, {state, body, record, tries, ms, worker} for each id}: state is ready, delayed, running, parked, ok,
-- dead, cancelled or unknown; record: of a live or dead job what went wrong last; tries: '<attempts>:<crashes>'; ms:
-- when it is due, its lease ends, or it ended. What there is not, is ''.

local function score(key, id)
  local scores = call('ZMSCORE', key, members_of(id))
  for i = 1, 8 do
    if scores[i] then return scores[i] end
  end
end

local function look(id)
  local body = call('HGET', JOBS, id)
  if not body then
    local kept = call('HGET', RESULTS, id)
    if not kept then return { 'unknown', '', '', '', '', '' } end
    local state = sub(kept, 1, 1) == 'o' and 'ok' or 'cancelled'
    return { state, '', sub(kept, 2), '', call('ZSCORE', DONE, id) or '', '' }
  end
  local state, at, worker = 'ready', '', ''
  local held = call('HGET', ACTIVE, id)
  local dead, due = call('ZSCORE', DEAD, id), score(DELAYED, id)
  if held then
    local fence
    state, fence, worker = 'running', match(held, '^.(%d+):(.*)$')
    at = call('ZSCORE', LEASES, fence) or ''
  elseif dead then
    state, at = 'dead', dead
  elseif due then
    state, at = 'delayed', due
  elseif call('HEXISTS', SPOTS, id) == 1 then
    state = 'parked'
  end
  return { state, body, call('HGET', NOTES, id) or '', call('HGET', TRIES, id) or '', at, worker }
end

local all = {}
for i = 1, #arg[1] do all[i] = look(arg[1][i]) end
return { now, all }
