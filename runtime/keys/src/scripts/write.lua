-- After late.lua: the part of a join on a cluster that concerns one hash. Sets fields. Returns whether the hash existed
-- and the earlier value of each field (the empty string: none), from which the part is undone if another part fails.
-- KEYS: the hash. ARGV from the third: fields and values by turns.
local before = { redis.call('EXISTS', KEYS[1]) }
for at = 3, #ARGV, 2 do
  before[#before + 1] = redis.call('HGET', KEYS[1], ARGV[at]) or ''
end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('EXPIRE', KEYS[1], ttl)
return before
