-- (after take.lua) Takes one of a rate. Answers how long to wait (ms); 0: it is taken.
local counter = unpack(KEYS)
local allowed, window = unpack(ARGV)
return take(counter, tonumber(allowed), tonumber(window))
