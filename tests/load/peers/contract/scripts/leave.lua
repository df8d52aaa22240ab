-- KEYS: participants, online, playback, seats. ARGV: ttl, socket, order id.
local seat = redis.call('HGET', KEYS[4], ARGV[3])
if not seat or cjson.decode(seat).socket ~= ARGV[2] then return 0 end
local participants = cjson.decode(redis.call('GET', KEYS[1]) or '[]')
for index, participant in ipairs(participants) do
  if participant.oderId == ARGV[3] then
    table.remove(participants, index)
    break
  end
end
-- An empty table would be written as an object.
redis.call('SET', KEYS[1], #participants > 0 and cjson.encode(participants) or '[]')
redis.call('SREM', KEYS[2], ARGV[2])
redis.call('HDEL', KEYS[4], ARGV[3])
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[1]) end
return 1
