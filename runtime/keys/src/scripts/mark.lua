-- Writes a marker, unless the present one shows that writes were lost. KEYS: the marker. ARGV: the TTL, the new number,
-- the least number that must be there (0: any or none), and 1 to ask for the replication's id. Returns -1 and keeps the
-- marker if its number is below the least, otherwise 0; and the id, or an empty string, also if the user may not read
-- the id.
local found, answer, id = tonumber(redis.call('GET', KEYS[1]) or '0') or 0, 0, ''
if found < tonumber(ARGV[3]) then
  answer = -1
elseif found < tonumber(ARGV[2]) or ARGV[3] == '0' then
  -- A command that arrives late, with a lower number, does not change the marker.
  redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[1])
end
if ARGV[4] == '1' then
  local info = redis.pcall('INFO', 'replication')
  if type(info) == 'string' then id = info:match('master_replid:(%w+)') or '' end
end
return {answer, id}
