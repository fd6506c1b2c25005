-- (after shrink.lua) One commit: position check, changed fields, fan-out, outbox. All of it or nothing.
-- KEYS  1 room  2 outbox  3 rooms (index)  4 era  5 audited
-- ARGV  1 expected head  2 next head  3 next epoch  4 ended (0/1)  5 clear (0/1)  6 node  7 the commit's id
--       8 publish command  9 channel  10 message  11 events  12 state  13 room id
--       14 life of a live room  15 of an ended one's head  16 of the outbox (ms)  17 entries the outbox may hold
--       18 whether this node may claim the next turn (0/1)  19 how long others wait for it (ms)
--       20 bytes the outbox may hold  21 how long a lost answer may be asked for again (ms)
--       22 fields to delete: their number, and then they; then fields and values
-- Answers {'ok', entry, era, commits that the outbox lost to its bound}, {'again', …}, {'conflict', head}, {'vacant'},
-- {'early', head}, {'wait', ms}, or {'full'}: Redis is at its maxmemory, nothing was written.
local room, outbox, rooms, era = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local expected, next_head, node, id = ARGV[1], ARGV[2], ARGV[6], ARGV[7]
local found = redis.call('HMGET', room, '@head', '@end', '@last', '@turn', '@hold')
local head, over, last, turn, hold = found[1], found[2], found[3], found[4], found[5]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- '@last' holds each node's last commit, latest node first: a node that lost an answer asks again with the same id. An
-- entry's id begins with its time, so a commit is forgotten when nobody asks for it any more, however many nodes there are.
local others = {}
if last then
  for who, what, entry in string.gmatch(last, '(%S+) (%S+) (%S+)\n') do
    if who == node then
      if what == id then
        return {'again', entry, redis.call('GET', era) or '', 0}
      end
    elseif tonumber(string.match(entry, '^%d+')) > now - ARGV[21] then
      others[#others + 1] = who .. ' ' .. what .. ' ' .. entry .. '\n'
    end
  end
end

-- '@hold': it was lost and written back a moment ago, and another node may know more of it.
-- '@turn': a node that lost several times in a row, as one far from Redis does among near ones, is waited for.
if hold and now < tonumber(hold) then
  return {'wait', tonumber(hold) - now}
end
if turn then
  local whose, ends = string.match(turn, '^(%S+) (%d+)$')
  if whose ~= node and now < tonumber(ends) then
    return {'wait', 20}
  end
end

local epoch = head and string.match(head, '^%d+')
if not head then
  if expected ~= '0.0' then
    return {'vacant'}
  end
elseif over then
  if expected ~= head and expected ~= '0.0' then
    return {'vacant'}
  end
  if tonumber(ARGV[3]) <= tonumber(epoch) then
    return {'early', head}
  end
elseif expected ~= head then
  if ARGV[18] == '1' then
    -- Refused when memory is short; then this node goes on losing.
    redis.pcall('HSET', room, '@turn', node .. ' ' .. string.format('%.0f', now + ARGV[19]))
  end
  return {'conflict', head}
end

-- The first write: memory that is short (OOM) is told here, before anything has changed.
local entry = redis.pcall('XADD', outbox, 'MAXLEN', '~', ARGV[17], '*',
  'room', ARGV[13], 'head', next_head, 'events', ARGV[11], 'state', ARGV[12])
if type(entry) == 'table' and entry.err then
  if string.find(entry.err, 'OOM', 1, true) then
    return {'full'}
  end
  return redis.error_reply(entry.err)
end
local lost = shrink(outbox, KEYS[5], tonumber(ARGV[20]))
redis.call('PEXPIRE', outbox, ARGV[16])
local age = redis.call('GET', era) or id
redis.call('SET', era, age, 'PX', ARGV[16])

local ended = ARGV[4] == '1'
if head and (ended or over or ARGV[5] == '1' or epoch ~= ARGV[3]) then
  redis.call('DEL', room)
end
redis.call('HSET', room, '@head', next_head, '@last', node .. ' ' .. id .. ' ' .. entry .. '\n' .. table.concat(others))
if turn or hold then
  redis.call('HDEL', room, '@turn', '@hold')
end
if ended then
  redis.call('HSET', room, '@end', '1')
  redis.call('PEXPIRE', room, ARGV[15])
  redis.call('ZREM', rooms, ARGV[13])
else
  local fields = 23 + tonumber(ARGV[22])
  for i = 23, fields - 1 do
    redis.call('HDEL', room, ARGV[i])
  end
  for i = fields, #ARGV, 2 do
    redis.call('HSET', room, ARGV[i], ARGV[i + 1])
  end
  redis.call('PEXPIRE', room, ARGV[14])
  redis.call('ZADD', rooms, time[1], ARGV[13])
  redis.call('PEXPIRE', rooms, ARGV[14])
end
redis.call(ARGV[8], ARGV[9], ARGV[10])
return {'ok', entry, age, lost}
