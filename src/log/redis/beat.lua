#!lua flags=allow-oom
-- A node lives. KEYS  1 leases  2 what is said of the cluster: by each node of itself, by the drainer (field '@') of all
-- ARGV  1 node ('' only looks)  2 its lease (ms)  3 how long the dead are kept (ms)  4 what it says of itself
-- Answers: nodes that live, nodes whose lease ran out, what is said, now (ms).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' then
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[2] + ARGV[3])
end
for _, who in ipairs(redis.call('HKEYS', KEYS[2])) do
  if who ~= '@' and not redis.call('ZSCORE', KEYS[1], who) then
    redis.call('HDEL', KEYS[2], who)
  end
end
return {
  redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf'),
  redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now),
  redis.call('HGETALL', KEYS[2]),
  now,
}
