-- After late.lua: the common beginning of a join and its repair. The whole script is one step, so no reader sees half
-- of it, and a hundred joins at once make the seat map once. If an existing map lacks the last number, all missing
-- numbers are added; other fields belong to other services. KEYS: seat map, field's hash, user's key, then the hashes
-- of the lesson that is left. A guest only has the seat map. ARGV from the third: seats, then role, user, sid and
-- lesson.
local seats, role, user, sid, lesson = tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6], ARGV[7]
-- A key of another type, which another service wrote, is not a map. It must not keep the join from succeeding.
if seats > 0 and redis.pcall('HEXISTS', KEYS[1], seats) == 0 then
  for seat = 1, seats do redis.call('HSETNX', KEYS[1], seat, '') end
end
redis.call('EXPIRE', KEYS[1], ttl)
if #KEYS == 1 then return 0 end
