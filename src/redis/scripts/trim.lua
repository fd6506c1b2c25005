-- (after shrink.lua) Removes entries that the audit is through with and that are older than `keep_from`, an entry's id.
-- Above three quarters of maxmemory it removes whatever the audit is through with; above nine tenths also the older
-- half of the rest, down to `rest_bytes`: live rooms need the memory. Answers entries that wait for the audit, the time
-- of the oldest of them (ms; 0: none), entries in all, live rooms, bytes of the outbox, commits that were removed
-- before the database had them, per cent of maxmemory in use (0: there is none).
local outbox, audited, rooms = unpack(KEYS)
local group, keep_from, rest_bytes = unpack(ARGV)
local live_rooms = redis.call('ZCARD', rooms)
local memory = redis.pcall('INFO', 'memory')
memory = type(memory) == 'string' and memory or ''
local used, most = string.match(memory, 'used_memory:(%d+)'), string.match(memory, 'maxmemory:(%d+)')
local percent = most and tonumber(most) > 0 and math.floor(100 * used / most) or 0
if redis.call('EXISTS', outbox) == 0 then
  return {0, 0, 0, live_rooms, 0, 0, percent}
end
local function earlier(a, b)
  local a_ms, a_n = string.match(a, '^(%d+)%-(%d+)$')
  local b_ms, b_n = string.match(b, '^(%d+)%-(%d+)$')
  if a_ms == b_ms then
    return tonumber(a_n) < tonumber(b_n)
  end
  return tonumber(a_ms) < tonumber(b_ms)
end
local done = redis.call('GET', audited) or '0-0'
local before = keep_from
if percent > 75 or earlier(done, before) then
  before = done
end
local pending = redis.pcall('XPENDING', outbox, group)
if not pending.err and pending[1] > 0 and earlier(pending[2], before) then
  before = pending[2]
end
redis.call('XTRIM', outbox, 'MINID', before)
local function bytes()
  local usage = redis.pcall('MEMORY', 'USAGE', outbox)
  return type(usage) == 'number' and usage or 0
end
local lost = 0
if percent > 90 then
  lost = shrink(outbox, audited, math.max(bytes() / 2, tonumber(rest_bytes)))
end
local waiting, oldest = 0, 0
local first = redis.call('XRANGE', outbox, '(' .. done, '+', 'COUNT', 1)[1]
if first then
  oldest = tonumber(string.match(first[1], '^%d+'))
  waiting = redis.call('XLEN', outbox)
  for _, fields in ipairs(redis.call('XINFO', 'GROUPS', outbox)) do
    local info = {}
    for i = 1, #fields, 2 do
      info[fields[i]] = fields[i + 1]
    end
    if info['name'] == group and info['lag'] then
      waiting = info['lag'] + info['pending']
    end
  end
end
return {waiting, oldest, redis.call('XLEN', outbox), live_rooms, bytes(), lost, percent}
