-- After entry.lua: makes what is missing of a join, changes nothing that is there, renews the TTLs.
if role == 'teacher' then
  redis.call('HSETNX', KEYS[3], 'lesson_id', lesson)
else
  redis.call('HSETNX', KEYS[3], 'sid', sid)
  redis.call('HSETNX', KEYS[3], 'client_id', user)
  redis.call('HSETNX', KEYS[3], 'role', role)
end
redis.call('EXPIRE', KEYS[3], ttl)
redis.call('HSETNX', KEYS[2], user, sid)
redis.call('EXPIRE', KEYS[2], ttl)
return 0
