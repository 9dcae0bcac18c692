-- After late.lua: one hash's part of a join on a cluster. Sets fields, and returns whether the hash was there and what each
-- of them was (the empty string: nothing), by which the part is undone where another part fails. KEYS: the hash. ARGV from
-- the third: fields and values, in turn.
local before = { redis.call('EXISTS', KEYS[1]) }
for at = 3, #ARGV, 2 do
  before[#before + 1] = redis.call('HGET', KEYS[1], ARGV[at]) or ''
end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('EXPIRE', KEYS[1], ttl)
return before
