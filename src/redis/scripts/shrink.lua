-- Put before scripts that use it. Keeps an outbox within `most` bytes: removes the oldest entries, a tenth of the bytes
-- at a time. Entries are in the audit's order, so those that the database has are removed first. Returns how many
-- commits were removed that the database does not have.
local function shrink(outbox, audited, most)
  local function bytes()
    local used = redis.pcall('MEMORY', 'USAGE', outbox)
    return type(used) == 'number' and used or 0
  end
  local used = bytes()
  if used <= most then
    return 0
  end
  local surplus = math.max(math.ceil(redis.call('XLEN', outbox) * (1 - 0.9 * most / used)), 1)
  local done = redis.call('GET', audited)
  if done then
    -- '~' removes whole nodes of the stream's tree (up to 100 entries each), which is cheaper.
    for _, limit in ipairs({surplus, math.max(surplus, 100)}) do
      redis.call('XTRIM', outbox, 'MINID', '~', done, 'LIMIT', limit)
      if bytes() <= most then
        return 0
      end
    end
    local ms, n = string.match(done, '^(%d+)%-(%d+)$')
    redis.call('XTRIM', outbox, 'MINID', ms .. '-' .. string.format('%.0f', n + 1))
    used = bytes()
    if used <= most then
      return 0
    end
  end
  surplus = math.max(math.ceil(redis.call('XLEN', outbox) * (1 - 0.9 * most / used)), 1)
  -- One stays: the entry that a commit has just added.
  return redis.call('XTRIM', outbox, 'MAXLEN', math.max(redis.call('XLEN', outbox) - surplus, 1))
end
