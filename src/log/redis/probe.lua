#!lua flags=allow-oom
-- A message to oneself, which proves that the bus is alive, and the age of the data, which tells when it was lost.
-- KEYS  1 era   ARGV  1 era if there is none  2 its life (ms)  3 publish command  4 channel  5 message
local age = redis.call('GET', KEYS[1]) or ARGV[1]
redis.call('SET', KEYS[1], age, 'PX', ARGV[2])
redis.call(ARGV[3], ARGV[4], ARGV[5])
return age
