-- What has become of a node's own last commits in this outbox.
-- KEYS  1 outbox  2 era  3 audited   ARGV  entries to look for, one after the other
-- Answers: era, last audited entry, and those entries that are not there.
local missing = {}
for i = 1, #ARGV do
  if #redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i], 'COUNT', 1) == 0 then
    missing[#missing + 1] = ARGV[i]
  end
end
return {redis.call('GET', KEYS[2]) or '', redis.call('GET', KEYS[3]) or '', missing}
