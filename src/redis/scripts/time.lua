-- Room time: Redis' clock, and how far room time is ahead of it because that clock was put back once.
-- `era` only names the server: in a cluster all nodes must ask the same one. `floor`: room time is raised to this (µs;
-- 0: it is only read). Answers seconds, microseconds, and how far ahead (µs).
local era, ahead_key = unpack(KEYS)
local floor, life = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local ahead = tonumber(redis.call('GET', ahead_key) or '0')
if tonumber(floor) > now + ahead then
  ahead = tonumber(floor) - now
end
if ahead > 0 then
  redis.call('SET', ahead_key, string.format('%.0f', ahead), 'PX', life)
end
return {time[1], time[2], string.format('%.0f', ahead)}
