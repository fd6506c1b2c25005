-- Writes a room back that Redis has lost. Only ever raises: a later head stays, and what ended stays ended.
-- KEYS  1 room  2 rooms (index)
-- ARGV  1 epoch  2 seq  3 room id  4 life of a live room (ms)  5 publish command  6 channel  7 message
--       8 how long commits wait for what other nodes may know (ms); fields and values
local found = redis.call('HMGET', KEYS[1], '@head', '@end', '@hold')
local epoch, seq = tonumber(ARGV[1]), tonumber(ARGV[2])
if found[1] then
  local at_epoch, at_seq = string.match(found[1], '^(%d+)%.(%d+)$')
  at_epoch, at_seq = tonumber(at_epoch), tonumber(at_seq)
  if found[2] then
    if epoch <= at_epoch then
      return {'vacant'}
    end
  elseif epoch < at_epoch or (epoch == at_epoch and seq <= at_seq) then
    return {'latest', redis.call('HGETALL', KEYS[1])}
  end
  redis.call('DEL', KEYS[1])
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local hold = found[3] or string.format('%.0f', now + ARGV[8])
redis.call('HSET', KEYS[1], '@head', ARGV[1] .. '.' .. ARGV[2], '@hold', hold)
for i = 9, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[2], time[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call(ARGV[5], ARGV[6], ARGV[7])
return {'raised'}
