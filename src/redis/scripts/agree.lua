#!lua flags=allow-oom
-- A value that the first node chooses and every node renews. Answers the value.
local key = unpack(KEYS)
local proposed, life = unpack(ARGV)
local value = redis.call('GET', key) or proposed
redis.call('SET', key, value, 'PX', life)
return value
