-- What was taken is not counted after all. KEYS  1 counter
local found = redis.call('GET', KEYS[1])
if found then
  local used, rest = string.match(found, '^(%d+)( .+)$')
  if tonumber(used) > 0 then
    redis.call('SET', KEYS[1], (tonumber(used) - 1) .. rest, 'KEEPTTL')
  end
end
