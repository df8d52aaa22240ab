-- Brings back a room that Redis has lost, or has in an older state.
--
-- KEYS  playback, participants, online; then our own: room, seats, log
-- ARGV  1 version and 2 id of the last change, 3 head, 4 row, 5 timeline, 6 playback (both may be empty), 7 sequence,
--       8 seconds to live; then for each seat: number, participant as others see it, socket id, record
local playback, participants, online, room, seats, log = unpack(KEYS)
local at = redis.call('HGET', room, 'version')
if at and tonumber(at) >= tonumber(ARGV[1]) then
  return { 'kept' }
end
redis.call('HSET', room, 'version', ARGV[1], 'id', ARGV[2], 'head', ARGV[3], 'row', ARGV[4], 'sequence', ARGV[7])
redis.call('DEL', playback, online, seats, log)
if ARGV[5] ~= '' then
  redis.call('HSET', room, 'timeline', ARGV[5])
  redis.call('SET', playback, ARGV[6])
else
  redis.call('HDEL', room, 'timeline')
end
local views = {}
for i = 9, #ARGV, 4 do
  redis.call('HSET', seats, ARGV[i], ARGV[i + 1] .. '\n' .. ARGV[i + 2] .. '\n' .. ARGV[i + 3])
  views[#views + 1] = ARGV[i + 1]
  if ARGV[i + 2] ~= '' then
    redis.call('SADD', online, ARGV[i + 2])
  end
end
redis.call('SET', participants, '[' .. table.concat(views, ',') .. ']')
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, ARGV[8])
end
return { 'done' }
