-- Put before scripts that use it. Counts in a window; one that is used up makes the next twice as long, up to 64 times.
-- A counter is the text "used since strikes": strikes are windows in a row that were used up.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Takes one. Returns how long to wait (ms); 0: it is taken.
local function take(key, allowed, window)
  local used, since, strikes = 0, now, 0
  local found = redis.call('GET', key)
  if found then
    used, since, strikes = string.match(found, '^(%d+) (%d+) (%d+)$')
    used, since, strikes = tonumber(used), tonumber(since), tonumber(strikes)
  end
  local span = window * 2 ^ strikes
  if now >= since + span then
    local exhausted = used >= allowed and now < since + 2 * span
    used, since, strikes = 0, now, exhausted and math.min(strikes + 1, 6) or 0
    span = window * 2 ^ strikes
  end
  if used >= allowed then
    return math.max(since + span - now, 1)
  end
  local life = string.format('%.0f', math.max(since + 2 * span - now, 1))
  redis.call('SET', key, string.format('%.0f %.0f %.0f', used + 1, since, strikes), 'PX', life)
  return 0
end
