-- (after shrink.lua) Entries that the audit is through with, and that are older than others were promised, go. When memory
-- is short (three quarters of maxmemory) whatever the audit is through with goes; when it is nearly used up (nine tenths) the
-- older half of what is left goes too, down to a small rest: live rooms need the place.
-- KEYS  1 outbox  2 audited  3 rooms (index)   ARGV  1 group  2 entries before this one may go (an id)  3 bytes of that rest
-- Answers: entries that wait for the audit, the time of the oldest of them (ms; 0: none), entries in all, live rooms, bytes
-- of the outbox, commits that went before the database had them, per cent of maxmemory in use (0: there is none).
local rooms = redis.call('ZCARD', KEYS[3])
local memory = redis.pcall('INFO', 'memory')
memory = type(memory) == 'string' and memory or ''
local used, most = string.match(memory, 'used_memory:(%d+)'), string.match(memory, 'maxmemory:(%d+)')
local percent = most and tonumber(most) > 0 and math.floor(100 * used / most) or 0
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {0, 0, 0, rooms, 0, 0, percent}
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
if percent > 75 or earlier(audited, before) then
  before = audited
end
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1])
if not pending.err and pending[1] > 0 and earlier(pending[2], before) then
  before = pending[2]
end
redis.call('XTRIM', KEYS[1], 'MINID', before)
local function bytes()
  local used = redis.pcall('MEMORY', 'USAGE', KEYS[1])
  return type(used) == 'number' and used or 0
end
local lost = 0
if percent > 90 then
  lost = shrink(KEYS[1], KEYS[2], math.max(bytes() / 2, tonumber(ARGV[3])))
end
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
return {waiting, oldest, redis.call('XLEN', KEYS[1]), rooms, bytes(), lost, percent}
