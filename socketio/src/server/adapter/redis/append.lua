-- Adds events to the stream of a namespace, all or none of them.
-- KEYS: the stream. ARGV: how many entries it is to keep at least, the instance, then the number and the data of each
-- event. An instance numbers its events, so that one which is added once more is known for what it is.
for at = 3, #ARGV, 2 do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'uid', ARGV[2], 'number', ARGV[at], 'data', ARGV[at + 1])
end
return redis.status_reply('OK')
