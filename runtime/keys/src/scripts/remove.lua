-- Removes a field, or sets it to the successor, but only while it still holds the sid of the connection that left.
-- KEYS: the hashes in which it may be. ARGV: user, sid, successor or the empty string.
local user, sid, successor = ARGV[1], ARGV[2], ARGV[3]
for index = 1, #KEYS do
  -- What others made of another type has no such field, and must not hold up the other fields.
  if redis.pcall('HGET', KEYS[index], user) == sid then
    if successor == '' then redis.call('HDEL', KEYS[index], user) else redis.call('HSET', KEYS[index], user, successor) end
  end
end
return 0
