-- Makes what is missing of a join, changes nothing that is there, renews the TTLs. Takes what the join takes.
local ttl, seats, role, user, sid, lesson = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], ARGV[6]
-- It came from a line that stood still: its sender has given up.
local time = redis.call('TIME')
if time[1] * 1000000 + time[2] > tonumber(ARGV[7]) then return -1 end
if redis.call('EXISTS', KEYS[1]) == 0 then
  for seat = 1, seats do redis.call('HSET', KEYS[1], seat, '') end
end
redis.call('EXPIRE', KEYS[1], ttl)
if #KEYS == 1 then return 0 end

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
