-- The next commits of some outboxes for the audit: first what a reader before took and never finished, then what is new.
-- KEYS  outboxes   ARGV  1 group  2 consumer  3 entries an outbox  4 1: also take over what others have pending
local answers = {}
for i, outbox in ipairs(KEYS) do
  local found = {}
  if redis.call('EXISTS', outbox) == 1 then
    local fresh = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 0 + ARGV[3], 'STREAMS', outbox, '>')
    if fresh and fresh.err then
      redis.call('XGROUP', 'CREATE', outbox, ARGV[1], '0')
      fresh = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 0 + ARGV[3], 'STREAMS', outbox, '>')
    end
    found = fresh and fresh[1][2] or {}
  end
  answers[i] = found
end
return answers
