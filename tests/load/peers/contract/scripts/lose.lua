-- KEYS: participants, online, playback, seats. ARGV: ttl, socket, order id.
local seat = redis.call('HGET', KEYS[4], ARGV[3])
if not seat then return false end
seat = cjson.decode(seat)
if seat.socket ~= ARGV[2] then return false end
local participants = cjson.decode(redis.call('GET', KEYS[1]) or '[]')
local lost = false
for _, participant in ipairs(participants) do
  if participant.oderId == ARGV[3] then
    participant.online = false
    lost = cjson.encode(participant)
  end
end
seat.socket = 'lost:' .. ARGV[2]
redis.call('SET', KEYS[1], cjson.encode(participants))
redis.call('SREM', KEYS[2], ARGV[2])
redis.call('HSET', KEYS[4], ARGV[3], cjson.encode(seat))
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[1]) end
return lost
