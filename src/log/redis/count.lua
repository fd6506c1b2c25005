-- (after take.lua) Takes one of a rate. KEYS  1 counter   ARGV  1 allowed  2 window (ms)
-- Answers how long to wait (ms); 0: it is taken.
return take(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]))
