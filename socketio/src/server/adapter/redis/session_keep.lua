-- Notes down what a session is, unless it has been taken over since.
-- KEYS: the session. ARGV: its generation, the instance, the state, the position seen, milliseconds to keep it.
-- Returns 1 where that is done and 0 where the session is another's.
local held = tonumber(redis.call('HGET', KEYS[1], 'generation') or 0)
if held > tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'uid', ARGV[2], 'state', ARGV[3], 'seen', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
