-- The next commits of some outboxes for the audit: first what was handed out and never arrived (the answer was lost, the
-- call was made again), then what is new. Entries are finished in order, so what is pending beyond the last one seen did not
-- arrive.
-- KEYS  outboxes   ARGV  1 group  2 consumer  3 entries an outbox; for each outbox the last entry that arrived
local answers = {}
for i, outbox in ipairs(KEYS) do
  local found = {}
  if redis.call('EXISTS', outbox) == 1 then
    local function read(after)
      return redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 0 + ARGV[3], 'STREAMS', outbox, after)
    end
    local again = read(ARGV[3 + i])
    if again and again.err then
      redis.call('XGROUP', 'CREATE', outbox, ARGV[1], '0')
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
