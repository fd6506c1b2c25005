#!lua flags=allow-oom
-- A message to oneself, which proves that the bus delivers. Answers the id of the data (`new_era`, if Redis has none):
-- another one than before means that Redis has lost its data.
local era = unpack(KEYS)
local new_era, life, publish, channel, message = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local era_id = redis.call('GET', era) or new_era .. '@' .. string.format('%.0f', now)
redis.call('SET', era, era_id, 'PX', life)
redis.call(publish, channel, message)
return era_id
