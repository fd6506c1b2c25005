#!lua flags=allow-oom
-- KEYS 1 lease  ARGV 1 who  2 its life (ms); answers 1 when it is this one's now
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
