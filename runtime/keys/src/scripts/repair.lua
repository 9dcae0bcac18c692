-- After entry.lua: adds what is missing of a join, changes no existing value, and renews the TTLs.
local refused
local function add(key, field, value)
  local answer = redis.pcall('HSETNX', key, field, value)
  -- A key of another type, which another service wrote, cannot be repaired. It must not keep the other keys from being
  -- repaired.
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
-- The server's error is returned unchanged, because the server's state is read from it.
return refused or 0
