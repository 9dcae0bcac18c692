-- The beginning of each script of a join. ARGV: the time of this server's clock, in microseconds, at which the caller
-- gives up; and the TTL. If the script runs later, because the network delayed it, it does nothing and returns -1.
local time, ttl = redis.call('TIME'), ARGV[2]
if time[1] * 1000000 + time[2] > tonumber(ARGV[1]) then return -1 end
