-- What became of a node's own last commits: the arguments are entries to look for.
-- Answers the id of the data, the last entry that the database has, and those entries that are missing.
local outbox, era, audited = unpack(KEYS)
local missing = {}
for i = 1, #ARGV do
  if #redis.call('XRANGE', outbox, ARGV[i], ARGV[i], 'COUNT', 1) == 0 then
    missing[#missing + 1] = ARGV[i]
  end
end
return {redis.call('GET', era) or '', redis.call('GET', audited) or '', missing}
