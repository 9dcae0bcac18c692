-- How each script of a join begins. ARGV: the moment of this server's clock, in microseconds, after which its sender has
-- given up; the TTL. Returns -1 where it comes later, because the network held it up, and does nothing.
local time, ttl = redis.call('TIME'), ARGV[2]
if time[1] * 1000000 + time[2] > tonumber(ARGV[1]) then return -1 end
