-- After late.lua: how a join and its projection begin, each in one step: nobody sees half of it, and a hundred at once make
-- the seat map once. Of a map that is there, the numbers that it lacks are added where it lacks the last: what else is in
-- it belongs to others. KEYS: seat map, field's hash, user's key, then the hashes of the lesson left. A guest has the seat
-- map only. ARGV from the third: seats, then role, user, sid and lesson.
local seats, role, user, sid, lesson = tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6], ARGV[7]
-- What others made of another type is no map, and must not hold up the join.
if seats > 0 and redis.pcall('HEXISTS', KEYS[1], seats) == 0 then
  for seat = 1, seats do redis.call('HSETNX', KEYS[1], seat, '') end
end
redis.call('EXPIRE', KEYS[1], ttl)
if #KEYS == 1 then return 0 end
