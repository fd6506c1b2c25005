-- Gives one back to a rate.
local counter = unpack(KEYS)
local found = redis.call('GET', counter)
if found then
  local used, rest = string.match(found, '^(%d+)( .+)$')
  if tonumber(used) > 0 then
    redis.call('SET', counter, (tonumber(used) - 1) .. rest, 'KEEPTTL')
  end
end
