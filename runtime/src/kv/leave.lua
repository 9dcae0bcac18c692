-- Removes a field, or hands it to the heir, but only while it still holds the sid of who leaves.
-- KEYS: the field's hash. ARGV: user, sid, heir or the empty string.
local user, sid, heir = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', KEYS[1], user) ~= sid then return 0 end
if heir == '' then return redis.call('HDEL', KEYS[1], user) end
redis.call('HSET', KEYS[1], user, heir)
return 1
