-- Writes a place that is held, whether the sets are full or not, and renews it. `life` is ms.
local user, address = unpack(KEYS)
local place, life = unpack(ARGV)
local time = redis.call('TIME')
local lapses = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + life)
for _, key in ipairs({user, address}) do
  redis.call('ZADD', key, lapses, place)
  redis.call('PEXPIRE', key, life)
end
