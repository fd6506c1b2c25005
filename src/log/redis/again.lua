-- (after shrink.lua) A commit that Redis had lost goes into the outbox again. The room is not touched.
-- KEYS  1 outbox  2 era  3 audited
-- ARGV  1 room id  2 head  3 events  4 state  5 life of the outbox (ms)  6 entries it may hold  7 era if none  8 bytes it may hold
local entry = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[6], '*',
  'room', ARGV[1], 'head', ARGV[2], 'events', ARGV[3], 'state', ARGV[4])
shrink(KEYS[1], KEYS[3], tonumber(ARGV[8]))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
local age = redis.call('GET', KEYS[2]) or ARGV[7]
redis.call('SET', KEYS[2], age, 'PX', ARGV[5])
return {'ok', entry, age}
