-- After late.lua: sets fields of one hash, or removes those whose new value is the empty string, but only while the
-- first of them holds a given value. Returns 1 if it did so. KEYS: the hash. ARGV from the third: the given value, then
-- fields and new values by turns.
if redis.call('HGET', KEYS[1], ARGV[4]) ~= ARGV[3] then return 0 end
for at = 4, #ARGV, 2 do
  if ARGV[at + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[at])
  else
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  end
end
return 1
