-- How a join and its projection begin, each in one step: nobody sees half of it, and a hundred at once make the seat map
-- once. Of a map that is there, the numbers that it lacks are added where it lacks the last: what else is in it belongs to
-- others. KEYS: seat map, field's hash, user's key, then the hashes of the lesson left. A guest has the seat map only.
-- Returns -1 where it came too late and did nothing.
local ttl, seats, role, user, sid, lesson = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], ARGV[6]
-- It came from a line that stood still: its sender has given up.
local time = redis.call('TIME')
if time[1] * 1000000 + time[2] > tonumber(ARGV[7]) then return -1 end
-- What others made of another type is no map, and must not hold up the join.
if seats > 0 and redis.pcall('HEXISTS', KEYS[1], seats) == 0 then
  for seat = 1, seats do redis.call('HSETNX', KEYS[1], seat, '') end
end
redis.call('EXPIRE', KEYS[1], ttl)
if #KEYS == 1 then return 0 end
