-- After entry.lua: the seed's join. ARGV[8]: 1 where this connection has left no lesson. Returns 1 where a participant's key
-- was there before; what this connection wrote was a try that failed where it has left no lesson.
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
