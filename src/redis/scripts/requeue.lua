-- (after shrink.lua) Puts a commit that Redis had lost into the outbox again. The room is not touched.
-- `new_era`: the id of the data, if Redis has none. Times are ms. Answers the entry and the id of the data.
local outbox, era, audited = unpack(KEYS)
local room_id, head, events, state, outbox_life, outbox_entries, new_era, outbox_bytes = unpack(ARGV)
local entry = redis.call('XADD', outbox, 'MAXLEN', '~', outbox_entries, '*',
  'room', room_id, 'head', head, 'events', events, 'state', state)
shrink(outbox, audited, tonumber(outbox_bytes))
redis.call('PEXPIRE', outbox, outbox_life)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local era_id = redis.call('GET', era) or new_era .. '@' .. string.format('%.0f', now)
redis.call('SET', era, era_id, 'PX', outbox_life)
return {entry, era_id}
