-- A place that is held, full or not. KEYS  1 the user's places  2 the address's   ARGV  1 the place  2 its life (ms)
local time = redis.call('TIME')
local lapses = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2])
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, lapses, ARGV[1])
  redis.call('PEXPIRE', key, ARGV[2])
end
