-- A node lives. KEYS  1 leases   ARGV  1 node ('' only looks)  2 its lease (ms)  3 how long the dead are kept (ms)
-- Answers: nodes that live, nodes whose lease ran out.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' then
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2] + ARGV[3])
return {
  redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf'),
  redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now),
}
