-- After late.lua: adds the fields that one hash lacks, changes no existing field, and renews the TTL. KEYS: the hash.
-- ARGV from the third: fields and values by turns.
local refused
for at = 3, #ARGV, 2 do
  local answer = redis.pcall('HSETNX', KEYS[1], ARGV[at], ARGV[at + 1])
  -- A key of another type, which another service wrote, cannot be repaired. It must not keep the other keys from being
  -- repaired.
  if type(answer) == 'table' and answer.err and not answer.err:find('WRONGTYPE') then refused = answer end
end
redis.call('EXPIRE', KEYS[1], ttl)
-- The server's error is returned unchanged, because the server's state is read from it.
return refused or 0
