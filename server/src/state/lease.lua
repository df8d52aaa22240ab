-- Renews the lease of an instance, and answers with all there are.
--
-- KEYS  leases
-- ARGV  1 the instance, 2 'claim' to take a name that must be free
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[2] == 'claim' then
  return redis.call('ZADD', KEYS[1], 'NX', now, ARGV[1])
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
local ages, leases = {}, redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #leases, 2 do
  ages[i], ages[i + 1] = leases[i], tostring(now - tonumber(leases[i + 1]))
end
return ages
