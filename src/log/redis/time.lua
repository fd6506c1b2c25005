-- Room time: Redis' own, and how far ahead of it room time is because the clock was put back once.
-- KEYS  1 era (names the server: in a cluster all nodes must ask the same one)  2 how far ahead (us)
-- ARGV  1 what room time must not lie before (us; 0: whatever it is)  2 life of the second key (ms)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local ahead = tonumber(redis.call('GET', KEYS[2]) or '0')
local floor = tonumber(ARGV[1])
if floor > now + ahead then
  ahead = floor - now
end
if ahead > 0 then
  redis.call('SET', KEYS[2], string.format('%.0f', ahead), 'PX', ARGV[2])
end
return {time[1], time[2], string.format('%.0f', ahead)}
