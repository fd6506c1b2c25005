-- Takes over entries that any reader of the group read and never acknowledged: at most `count`, from the entry `from`
-- on. Answers where to go on ('0-0': nowhere) and the entries.
local outbox = unpack(KEYS)
local group, consumer, count, from = unpack(ARGV)
if redis.call('EXISTS', outbox) == 0 then
  return {'0-0', {}}
end
local claimed = redis.pcall('XAUTOCLAIM', outbox, group, consumer, 0, from, 'COUNT', count)
if claimed.err then
  return {'0-0', {}}
end
return {claimed[1], claimed[2]}
