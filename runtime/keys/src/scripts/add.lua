-- After late.lua: adds fields that one hash lacks, changes nothing that is there, renews the TTL. KEYS: the hash. ARGV from
-- the third: fields and values, in turn.
local refused
for at = 3, #ARGV, 2 do
  local answer = redis.pcall('HSETNX', KEYS[1], ARGV[at], ARGV[at + 1])
  -- What others made of another type cannot be mended, and must not hold up what can.
  if type(answer) == 'table' and answer.err and not answer.err:find('WRONGTYPE') then refused = answer end
end
redis.call('EXPIRE', KEYS[1], ttl)
-- As the server said it, so that its state is known by it.
return refused or 0
