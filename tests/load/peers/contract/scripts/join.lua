-- KEYS: participants, online, playback, seats. ARGV: ttl, socket, most participants, participant.
local participants = cjson.decode(redis.call('GET', KEYS[1]) or '[]')
local joining = cjson.decode(ARGV[4])
local place, previous, socket = #participants + 1, '', ''
for index, participant in ipairs(participants) do
  if participant.id == joining.id then
    place, previous = index, participant.oderId
    local seat = redis.call('HGET', KEYS[4], previous)
    socket = seat and cjson.decode(seat).socket or ''
  end
end
if place > tonumber(ARGV[3]) then return false end
if previous ~= '' then
  redis.call('HDEL', KEYS[4], previous)
  redis.call('SREM', KEYS[2], socket)
end
participants[place] = joining
local list = cjson.encode(participants)
redis.call('SET', KEYS[1], list)
redis.call('SADD', KEYS[2], ARGV[2])
redis.call('HSET', KEYS[4], joining.oderId,
  cjson.encode({ socket = ARGV[2], role = joining.role, canControl = joining.canControl }))
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[1]) end
return { list, redis.call('GET', KEYS[3]) or '', previous, socket }
