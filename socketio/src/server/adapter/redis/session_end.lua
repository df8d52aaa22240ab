-- Forgets a session, unless it has been taken over since.
-- KEYS: the session. ARGV: its generation.
if redis.call('HGET', KEYS[1], 'generation') == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
return 1
