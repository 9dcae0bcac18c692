-- The seed's join in one step: nobody sees half of it, and a hundred at once make the seat map once.
-- KEYS: seat map, field's hash, user's key, then the hashes of the lesson left. A guest has the seat map only.
-- Returns 1 where a participant's key was there before, -1 where it came too late and did nothing.
local ttl, seats, role, user, sid, lesson = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], ARGV[6]
-- It came from a line that stood still: its sender has given up.
local time = redis.call('TIME')
if time[1] * 1000000 + time[2] > tonumber(ARGV[7]) then return -1 end
if redis.call('EXISTS', KEYS[1]) == 0 then
  for seat = 1, seats do redis.call('HSET', KEYS[1], seat, '') end
end
redis.call('EXPIRE', KEYS[1], ttl)
if #KEYS == 1 then return 0 end

for index = 4, #KEYS do
  if redis.call('HGET', KEYS[index], user) == sid then redis.call('HDEL', KEYS[index], user) end
end
local known = 0
if role == 'teacher' then
  redis.call('HSET', KEYS[3], 'lesson_id', lesson)
else
  known = redis.call('EXISTS', KEYS[3])
  redis.call('HSET', KEYS[3], 'sid', sid, 'client_id', user, 'role', role)
end
redis.call('EXPIRE', KEYS[3], ttl)
redis.call('HSET', KEYS[2], user, sid)
redis.call('EXPIRE', KEYS[2], ttl)
return known
