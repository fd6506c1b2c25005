-- Entries that the audit is through with, and that are older than others were promised, go.
-- KEYS  1 outbox  2 audited  3 rooms (index)   ARGV  1 group  2 entries before this one may go  (an id)
-- Answers: entries that wait for the audit, the time of the oldest of them (ms; 0: none), entries in all, live rooms.
local rooms = redis.call('ZCARD', KEYS[3])
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {0, 0, 0, rooms}
end
local function earlier(a, b)
  local a_ms, a_n = string.match(a, '^(%d+)%-(%d+)$')
  local b_ms, b_n = string.match(b, '^(%d+)%-(%d+)$')
  if a_ms == b_ms then
    return tonumber(a_n) < tonumber(b_n)
  end
  return tonumber(a_ms) < tonumber(b_ms)
end
local audited = redis.call('GET', KEYS[2]) or '0-0'
local before = ARGV[2]
if earlier(audited, before) then
  before = audited
end
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1])
if not pending.err and pending[1] > 0 and earlier(pending[2], before) then
  before = pending[2]
end
redis.call('XTRIM', KEYS[1], 'MINID', before)
local waiting, oldest = 0, 0
local first = redis.call('XRANGE', KEYS[1], '(' .. audited, '+', 'COUNT', 1)[1]
if first then
  oldest = tonumber(string.match(first[1], '^%d+'))
  local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
  waiting = redis.call('XLEN', KEYS[1])
  for _, group in ipairs(groups) do
    local info = {}
    for i = 1, #group, 2 do
      info[group[i]] = group[i + 1]
    end
    if info['name'] == ARGV[1] and info['lag'] then
      waiting = info['lag'] + info['pending']
    end
  end
end
return {waiting, oldest, redis.call('XLEN', KEYS[1]), rooms}
