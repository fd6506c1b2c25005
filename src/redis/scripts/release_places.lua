-- Removes places that are no longer held: the arguments.
local user, address = unpack(KEYS)
for i = 1, #ARGV do
  redis.call('ZREM', user, ARGV[i])
  redis.call('ZREM', address, ARGV[i])
end
