-- After entry.lua: makes what is missing of a join, changes nothing that is there, renews the TTLs.
local refused
local function add(key, field, value)
  local answer = redis.pcall('HSETNX', key, field, value)
  -- What others made of another type cannot be mended, and must not hold up what can.
  if type(answer) == 'table' and answer.err and not answer.err:find('WRONGTYPE') then refused = answer end
end
if role == 'teacher' then
  add(KEYS[3], 'lesson_id', lesson)
else
  add(KEYS[3], 'sid', sid)
  add(KEYS[3], 'client_id', user)
  add(KEYS[3], 'role', role)
end
redis.call('EXPIRE', KEYS[3], ttl)
add(KEYS[2], user, sid)
redis.call('EXPIRE', KEYS[2], ttl)
-- As the server said it, so that its state is known by it.
return refused or 0
