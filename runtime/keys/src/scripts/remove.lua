-- Removes a field, or sets it to its successor, but only while it still holds the sid of the connection that left.
-- KEYS: the hashes in which it may be. ARGV: user, sid; then the successor in each hash, or the empty string.
local user, sid = ARGV[1], ARGV[2]
for index = 1, #KEYS do
  local successor = ARGV[2 + index]
  -- A key of another type, which another service wrote, has no such field. It must not keep the other fields from being
  -- removed.
  if redis.pcall('HGET', KEYS[index], user) == sid then
    if successor == '' then redis.call('HDEL', KEYS[index], user) else redis.call('HSET', KEYS[index], user, successor) end
  end
end
return 0
