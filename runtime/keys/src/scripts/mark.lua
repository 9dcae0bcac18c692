-- Writes a marker, unless it shows that writes are lost. KEYS: the marker. ARGV: TTL, its number, the least number that
-- must be there (0: whatever is), 1 to ask for the replication's id. Returns -1 where there is a lower number, which stays,
-- else 0; and the id, or an empty string, also where the user has no right to it.
local found, answer, id = tonumber(redis.call('GET', KEYS[1]) or '0') or 0, 0, ''
if found < tonumber(ARGV[3]) then
  answer = -1
elseif found < tonumber(ARGV[2]) or ARGV[3] == '0' then
  -- One that comes late changes nothing.
  redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[1])
end
if ARGV[4] == '1' then
  local info = redis.pcall('INFO', 'replication')
  if type(info) == 'string' then id = info:match('master_replid:(%w+)') or '' end
end
return {answer, id}
