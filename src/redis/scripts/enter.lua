-- (after take.lua) A JOIN: counts one for the address, and takes a place for the session in two sets (of the user, of
-- the address) of joined sessions, each by the moment at which it lapses. Times are ms; `counted` is 1 when the JOIN
-- was counted before. Answers {'ok'}, {'wait', ms}, or {'full', 'user' or 'address', now, the `named` oldest places and
-- when they lapse}.
local joins, user, address = unpack(KEYS)
local allowed, window, place, life, most_of_user, most_of_address, named, counted = unpack(ARGV)
local wait = counted == '1' and 0 or take(joins, tonumber(allowed), tonumber(window))
if wait > 0 then
  return {'wait', wait}
end
local lapses = string.format('%.0f', now + life)
for _, set in ipairs({{'user', user, most_of_user}, {'address', address, most_of_address}}) do
  redis.call('ZREMRANGEBYSCORE', set[2], '-inf', now)
  if redis.call('ZCARD', set[2]) >= tonumber(set[3]) then
    return {'full', set[1], now, redis.call('ZRANGE', set[2], 0, named - 1, 'WITHSCORES')}
  end
end
for _, key in ipairs({user, address}) do
  redis.call('ZADD', key, lapses, place)
  redis.call('PEXPIRE', key, life)
end
return {'ok'}
