-- Keeps an outbox within `most` bytes, for the scripts that this is put before: the oldest entries go, a tenth of the
-- bytes at a time. They are in the audit's order, so those that the database has go first. Answers how many commits went
-- that the database does not have.
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
    -- Whole nodes of the stream, which is cheaper; a node has up to 100 entries.
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
  -- The newest is the one that a commit has just added.
  return redis.call('XTRIM', outbox, 'MAXLEN', math.max(redis.call('XLEN', outbox) - surplus, 1))
end
