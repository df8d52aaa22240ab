-- Notes down that the client of a session is still there.
-- KEYS: the session. ARGV: its generation, the position seen, milliseconds to keep it.
-- Returns 1 where that is done, 0 where the session is another's and -1 where there is none, or an older one since Redis
-- has lost what came later.
local held = tonumber(redis.call('HGET', KEYS[1], 'generation') or 0)
if held < tonumber(ARGV[1]) then
  return -1
end
if held > tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'seen', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
