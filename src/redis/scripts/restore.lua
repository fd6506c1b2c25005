-- Writes a room back that Redis has lost. Only raises: a later head stays, and an epoch that ended stays ended.
-- Commits to it wait for `recovery_wait`, during which other nodes write what they know. Times are ms.
-- After the named arguments come fields and values.
-- Answers {'raised'}, {'latest', fields and values}, or {'vacant'}.
local room, rooms = unpack(KEYS)
local epoch_text, seq_text, room_id, room_life, publish, channel, message, recovery_wait = unpack(ARGV, 1, 8)
-- '@hold' is what 3.0.0 calls '@frozen_until' (commit.lua).
local found = redis.call('HMGET', room, '@head', '@end', '@frozen_until', '@hold')
local head, over, frozen_until = found[1], found[2], found[3] or found[4]
local epoch, seq = tonumber(epoch_text), tonumber(seq_text)
if head then
  local at_epoch, at_seq = string.match(head, '^(%d+)%.(%d+)$')
  at_epoch, at_seq = tonumber(at_epoch), tonumber(at_seq)
  if over then
    if epoch <= at_epoch then
      return {'vacant'}
    end
  elseif epoch < at_epoch or (epoch == at_epoch and seq <= at_seq) then
    return {'latest', redis.call('HGETALL', room)}
  end
  redis.call('DEL', room)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- A failover's replica may still have a wait that is over. One that runs is not prolonged: another node began it.
if not frozen_until or tonumber(frozen_until) <= now then
  frozen_until = string.format('%.0f', now + recovery_wait)
end
redis.call('HSET', room, '@head', epoch_text .. '.' .. seq_text, '@frozen_until', frozen_until)
for i = 9, #ARGV, 2 do
  redis.call('HSET', room, ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', room, room_life)
redis.call('ZADD', rooms, time[1], room_id)
redis.call('PEXPIRE', rooms, room_life)
redis.call(publish, channel, message)
return {'raised'}
