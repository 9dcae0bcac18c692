-- Removes a field, or hands it to the successor, but only while it still holds the sid of who leaves.
-- KEYS: the hashes in which it may be. ARGV: user, sid, successor or the empty string.
local user, sid, successor = ARGV[1], ARGV[2], ARGV[3]
for index = 1, #KEYS do
  -- What others made of another type has no such field, and must not hold up those who leave elsewhere.
  if redis.pcall('HGET', KEYS[index], user) == sid then
    if successor == '' then redis.call('HDEL', KEYS[index], user) else redis.call('HSET', KEYS[index], user, successor) end
  end
end
return 0
