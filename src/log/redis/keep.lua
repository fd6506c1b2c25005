#!lua flags=allow-oom
-- A value that whoever comes first gives, and everybody renews. KEYS  1 it   ARGV  1 the value if there is none  2 its life (ms)
local value = redis.call('GET', KEYS[1]) or ARGV[1]
redis.call('SET', KEYS[1], value, 'PX', ARGV[2])
return value
