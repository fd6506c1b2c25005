#!lua flags=allow-oom
-- Renews a node's lease, and tells of the others. `reports`: what each node says of itself, and the drainer of the
-- whole cluster (field '@'). An empty `node` only looks. Times are ms. Answers nodes whose lease runs, nodes whose
-- lease ran out, the reports, and the time.
local leases, reports = unpack(KEYS)
local node, lease, remember, report = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if node ~= '' then
  redis.call('ZADD', leases, now + lease, node)
  redis.call('HSET', reports, node, report)
end
redis.call('ZREMRANGEBYSCORE', leases, '-inf', now - remember)
for _, key in ipairs({leases, reports}) do
  redis.call('PEXPIRE', key, lease + remember)
end
for _, reporter in ipairs(redis.call('HKEYS', reports)) do
  if reporter ~= '@' and not redis.call('ZSCORE', leases, reporter) then
    redis.call('HDEL', reports, reporter)
  end
end
return {
  redis.call('ZRANGEBYSCORE', leases, '(' .. now, '+inf'),
  redis.call('ZRANGEBYSCORE', leases, '-inf', now),
  redis.call('HGETALL', reports),
  now,
}
