#!lua flags=allow-oom
-- The database has these entries. KEYS  1 outbox  2 audited   ARGV  1 group  2 life (ms)  3 the last entry; entries
for i = 4, #ARGV do
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2])
