#!lua flags=allow-oom
-- Acknowledges entries that the database has: `last`, and those after the named arguments.
local outbox, audited = unpack(KEYS)
local group, life, last = unpack(ARGV, 1, 3)
for i = 4, #ARGV do
  redis.call('XACK', outbox, group, ARGV[i])
end
redis.call('SET', audited, last, 'PX', life)
