-- Redis' clock. `era` only names the server: in a cluster all nodes must ask the same one.
local era = unpack(KEYS)
return redis.call('TIME')
