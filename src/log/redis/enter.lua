-- (after take.lua) A JOIN: one of the address's, and a place for its session, where there are not as many as there may be.
-- KEYS  1 counter of JOINs  2 the user's places  3 the address's (sorted sets, by the moment at which each lapses, ms)
-- ARGV  1 JOINs allowed  2 window (ms)  3 the place  4 its life (ms)  5 most of the user  6 most of the address
--       7 places to name  8 1: the JOIN is counted already
-- Answers {'ok'}, {'wait', ms}, or {'full', which key, now, the oldest places and when they lapse}.
local wait = ARGV[8] == '1' and 0 or take(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]))
if wait > 0 then
  return {'wait', wait}
end
local lapses = string.format('%.0f', now + ARGV[4])
for i = 2, 3 do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  if redis.call('ZCARD', KEYS[i]) >= tonumber(ARGV[i + 3]) then
    return {'full', i, now, redis.call('ZRANGE', KEYS[i], 0, ARGV[7] - 1, 'WITHSCORES')}
  end
end
for i = 2, 3 do
  redis.call('ZADD', KEYS[i], lapses, ARGV[3])
  redis.call('PEXPIRE', KEYS[i], ARGV[4])
end
return {'ok'}
