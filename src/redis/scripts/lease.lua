#!lua flags=allow-oom
-- Takes a lease, or renews it, for `life` ms. Answers 1 if `node` holds it now, else 0.
local lease = unpack(KEYS)
local node, life = unpack(ARGV)
local holder = redis.call('GET', lease)
if holder and holder ~= node then
  return 0
end
redis.call('SET', lease, node, 'PX', life)
return 1
