-- Everything that was read for the audit and never finished, by whomever, becomes this reader's.
-- KEYS  1 outbox   ARGV  1 group  2 consumer  3 entries  4 from where
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'0-0', {}}
end
local claimed = redis.pcall('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[4], 'COUNT', ARGV[3])
if claimed.err then
  return {'0-0', {}}
end
return {claimed[1], claimed[2]}
