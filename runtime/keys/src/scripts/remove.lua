-- Removes a field, or sets it to the successor, but only while it still holds the sid of the connection that left.
-- KEYS: the hashes that may have the field. ARGV: user, sid, and successor or the empty string.
local user, sid, successor = ARGV[1], ARGV[2], ARGV[3]
for index = 1, #KEYS do
  -- A key of another type, which another service wrote, has no such field. It must not keep the other fields from being
  -- removed.
  if redis.pcall('HGET', KEYS[index], user) == sid then
    if successor == '' then redis.call('HDEL', KEYS[index], user) else redis.call('HSET', KEYS[index], user, successor) end
  end
end
return 0
