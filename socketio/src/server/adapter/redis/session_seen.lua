-- Notes down that the client of a session is still there.
-- KEYS: the session. ARGV: its generation, the position seen, milliseconds to keep it.
-- Returns 1 where that is done, 0 where the session is another's and -1 where there is none.
local held = redis.call('HGET', KEYS[1], 'generation')
if not held then
  return -1
end
if held ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'seen', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
