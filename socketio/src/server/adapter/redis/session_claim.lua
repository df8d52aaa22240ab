-- Takes a session over, once for each call: the former instance can change it no more.
-- KEYS: the session. ARGV: the instance.
-- Returns the former instance, the new generation, the state and the position seen; nil where there is no such session.
local known = redis.call('HMGET', KEYS[1], 'uid', 'state', 'seen')
if not known[1] then
  return false
end
local generation = redis.call('HINCRBY', KEYS[1], 'generation', 1)
redis.call('HSET', KEYS[1], 'uid', ARGV[1])
return { known[1], generation, known[2], known[3] }
