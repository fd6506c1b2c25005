-- Places that nobody holds any more. KEYS  1 the user's places  2 the address's   ARGV  they
for _, key in ipairs(KEYS) do
  redis.call('ZREM', key, unpack(ARGV))
end
