-- How a join and its projection begin, each in one step: nobody sees half of it, and a hundred at once make the seat map
-- once. KEYS: seat map, field's hash, user's key, then the hashes of the lesson left. A guest has the seat map only.
-- Returns -1 where it came too late and did nothing.
local ttl, seats, role, user, sid, lesson = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], ARGV[6]
-- It came from a line that stood still: its sender has given up.
local time = redis.call('TIME')
if time[1] * 1000000 + time[2] > tonumber(ARGV[7]) then return -1 end
if redis.call('EXISTS', KEYS[1]) == 0 then
  for seat = 1, seats do redis.call('HSET', KEYS[1], seat, '') end
end
redis.call('EXPIRE', KEYS[1], ttl)
if #KEYS == 1 then return 0 end
