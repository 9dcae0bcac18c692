-- After entry.lua: the seed's join. ARGV[8]: 1 if this connection has left no lesson. Returns 1 if a participant's key
-- existed before. If this connection has written that key and has left no lesson, the key is from a failed attempt and
-- does not count.
for index = 4, #KEYS do
  if redis.call('HGET', KEYS[index], user) == sid then redis.call('HDEL', KEYS[index], user) end
end
local known = 0
if role == 'teacher' then
  redis.call('HSET', KEYS[3], 'lesson_id', lesson)
else
  known = redis.call('EXISTS', KEYS[3])
  if ARGV[8] == '1' and redis.call('HGET', KEYS[3], 'sid') == sid then known = 0 end
  redis.call('HSET', KEYS[3], 'sid', sid, 'client_id', user, 'role', role)
end
redis.call('EXPIRE', KEYS[3], ttl)
redis.call('HSET', KEYS[2], user, sid)
redis.call('EXPIRE', KEYS[2], ttl)
return known
