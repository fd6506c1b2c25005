-- The next entries of some outboxes, at most `count` of each: first what was handed out and never arrived (the answer
-- was lost, the call was made again), then what is new. Entries are acknowledged in order, so what is pending beyond
-- the last one that arrived was lost on its way. The keys are the outboxes; after the named arguments comes, for each
-- of them, the last entry that arrived.
local group, consumer, count = unpack(ARGV, 1, 3)
local answers = {}
for i, outbox in ipairs(KEYS) do
  local found = {}
  if redis.call('EXISTS', outbox) == 1 then
    local function read(after)
      return redis.pcall('XREADGROUP', 'GROUP', group, consumer, 'COUNT', 0 + count, 'STREAMS', outbox, after)
    end
    local again = read(ARGV[3 + i])
    if again and again.err then
      redis.call('XGROUP', 'CREATE', outbox, group, '0')
      again = nil
    end
    found = again and again[1][2] or {}
    if #found == 0 then
      local fresh = read('>')
      if fresh and fresh.err then
        return redis.error_reply(fresh.err)
      end
      found = fresh and fresh[1][2] or {}
    end
  end
  answers[i] = found
end
return answers
