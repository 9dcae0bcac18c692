-- After late.lua: sets fields of one hash (to the empty string: removes them), but only while the first of them holds a
-- value. Returns 1 where it did. KEYS: the hash. ARGV from the third: that value; then fields and values, in turn.
if redis.call('HGET', KEYS[1], ARGV[4]) ~= ARGV[3] then return 0 end
for at = 4, #ARGV, 2 do
  if ARGV[at + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[at])
  else
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  end
end
return 1
