-- (after shrink.lua) One commit: compare-and-set on the head, changed fields, fan-out, outbox. All of it or nothing.
--
-- `ended`, `clear` and `claims_turn` are 0 or 1; times are ms; `outbox_entries` and `outbox_bytes` bound the outbox;
-- `id` names the commit, and `answer_life` is how long a lost answer may be asked for again.
-- After the named arguments come the names of the `deleted` fields to delete, then fields and values to set.
--
-- Answers {'ok', entry, era id, commits that the outbox lost to its bound}, {'again', …}, {'conflict', head},
-- {'vacant'}, {'early', head}, {'frozen', ms, head}, {'wait', ms}, or {'full'}: Redis is at its maxmemory, nothing was
-- written. 'frozen' has the head '0.0' for a room that can't begin yet.
local room, outbox, rooms, era, audited = unpack(KEYS)
local expected, next_head, next_epoch, ended, clear, node, id, publish, channel, message, events, state, room_id,
  room_life, end_life, outbox_life, outbox_entries, claims_turn, turn_life, outbox_bytes, answer_life,
  recovery_wait, deleted = unpack(ARGV, 1, 23)

-- A room that a node of 3.0.0 wrote back has '@hold' instead of '@frozen_until': it is honoured, and deleted alike.
-- Such a node doesn't know '@frozen_until' and would commit at once: the wait is not kept by it, for recovery_wait (2
-- s) after Redis lost its data in the middle of an update. A field whose time is over counts for nothing, here and in
-- restore.lua.
local found = redis.call('HMGET', room, '@head', '@end', '@last', '@turn', '@frozen_until', '@hold')
local head, over, last, turn, frozen_until = found[1], found[2], found[3], found[4], found[5] or found[6]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- '@last' holds each node's last commit, latest node first: a node that lost an answer asks again with the same id. An
-- entry's id begins with its time, so a commit is forgotten after `answer_life`, however many nodes there are.
local others = {}
if last then
  for name, commit_id, entry in string.gmatch(last, '(%S+) (%S+) (%S+)\n') do
    if name == node then
      if commit_id == id then
        return {'again', entry, redis.call('GET', era) or '', 0}
      end
    elseif tonumber(string.match(entry, '^%d+')) > now - answer_life then
      others[#others + 1] = name .. ' ' .. commit_id .. ' ' .. entry .. '\n'
    end
  end
end

-- Frozen: the room was lost and written back, and another node may know more of it.
if frozen_until and now < tonumber(frozen_until) then
  return {'frozen', tonumber(frozen_until) - now, head}
end
-- '@turn': the node that lost several races in a row (a long round trip to Redis) commits next, the others wait.
if turn then
  local whose, ends = string.match(turn, '^(%S+) (%d+)$')
  if whose ~= node and now < tonumber(ends) then
    return {'wait', 20}
  end
end

local epoch = head and string.match(head, '^%d+')
local era_id = redis.call('GET', era)
if not head then
  if expected ~= '0.0' then
    return {'vacant'}
  end
  -- A Redis without an id has lost its data (a node names that of a new Redis when it starts): a room that begins now
  -- may be one that another node has yet to write back.
  if not era_id then
    era_id = id .. '@' .. string.format('%.0f', now)
    local set = redis.pcall('SET', era, era_id, 'PX', outbox_life)
    if type(set) == 'table' and set.err then
      return {'full'}
    end
  end
  local ends = tonumber(string.match(era_id, '@(%d+)$') or 0) + recovery_wait
  if now < ends then
    return {'frozen', ends - now, '0.0'}
  end
elseif over then
  if expected ~= head and expected ~= '0.0' then
    return {'vacant'}
  end
  if tonumber(next_epoch) <= tonumber(epoch) then
    return {'early', head}
  end
elseif expected ~= head then
  if claims_turn == '1' then
    -- Refused when memory is short; then this node goes on losing.
    redis.pcall('HSET', room, '@turn', node .. ' ' .. string.format('%.0f', now + turn_life))
  end
  return {'conflict', head}
end

-- The first write: OOM is reported here, before anything has changed.
local entry = redis.pcall('XADD', outbox, 'MAXLEN', '~', outbox_entries, '*',
  'room', room_id, 'head', next_head, 'events', events, 'state', state)
if type(entry) == 'table' and entry.err then
  if string.find(entry.err, 'OOM', 1, true) then
    return {'full'}
  end
  return redis.error_reply(entry.err)
end
local lost = shrink(outbox, audited, tonumber(outbox_bytes))
redis.call('PEXPIRE', outbox, outbox_life)
era_id = era_id or id .. '@' .. string.format('%.0f', now)
redis.call('SET', era, era_id, 'PX', outbox_life)

if head and (ended == '1' or over or clear == '1' or epoch ~= next_epoch) then
  redis.call('DEL', room)
end
redis.call('HSET', room, '@head', next_head, '@last', node .. ' ' .. id .. ' ' .. entry .. '\n' .. table.concat(others))
if turn or frozen_until then
  redis.call('HDEL', room, '@turn', '@frozen_until', '@hold')
end
if ended == '1' then
  redis.call('HSET', room, '@end', '1')
  redis.call('PEXPIRE', room, end_life)
  redis.call('ZREM', rooms, room_id)
else
  local first_set = 24 + tonumber(deleted)
  for i = 24, first_set - 1 do
    redis.call('HDEL', room, ARGV[i])
  end
  for i = first_set, #ARGV, 2 do
    redis.call('HSET', room, ARGV[i], ARGV[i + 1])
  end
  redis.call('PEXPIRE', room, room_life)
  redis.call('ZADD', rooms, time[1], room_id)
  redis.call('PEXPIRE', rooms, room_life)
end
redis.call(publish, channel, message)
return {'ok', entry, era_id, lost}
