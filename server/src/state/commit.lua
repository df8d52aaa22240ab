-- Makes one change of a room, if the room still is what the change was worked out from, and tells the other instances.
--
-- KEYS  playback, participants, online; then our own: room, seats, log
-- ARGV  1 version and 2 id of the change it builds on, 3 the id of this one, 4 head, 5 row, 6 timeline, 7 playback (each
--       empty if unchanged), 8 sequence, 9 seats there may be, 10 whether the room is closed, 11 seconds to live,
--       12 the entry for the log, 13 the command that publishes it, 14 the channel, 15 entries to keep;
--       then for each seat: number, participant as others see it, socket id, record (empty if given up)
local playback, participants, online, room, seats, log = unpack(KEYS)
local at = redis.call('HMGET', room, 'version', 'id', 'sequence')
if not at[1] then
  return { 'missing' }
end
local behind = tonumber(at[1]) - tonumber(ARGV[1])
if behind ~= 0 or at[2] ~= ARGV[2] then
  if behind > 0 and behind <= redis.call('LLEN', log) then
    return { 'behind', redis.call('LRANGE', log, -behind, -1) }
  end
  return { behind < 0 and 'older' or 'other' }
end

-- Whoever asks has checked this already, on what the room was: here is where it is certain.
if tonumber(ARGV[8]) < tonumber(at[3]) then
  return { 'sequence' }
end
local FIRST = 16
local before, after, looks_different = redis.call('HLEN', seats), 0, false
local old = {}
after = before
for i = FIRST, #ARGV, 4 do
  local record = redis.call('HGET', seats, ARGV[i])
  old[i] = record
  if record and ARGV[i + 3] == '' then
    after = after - 1
  elseif not record and ARGV[i + 3] ~= '' then
    after = after + 1
  end
end
if after > before and after > tonumber(ARGV[9]) then
  return { 'full' }
end

-- First a write that is refused where memory is short, so that nothing is done by halves.
redis.call('HSET', room, 'version', tonumber(ARGV[1]) + 1, 'id', ARGV[3], 'head', ARGV[4], 'sequence', ARGV[8])
if ARGV[5] ~= '' then
  redis.call('HSET', room, 'row', ARGV[5])
end
if ARGV[6] ~= '' then
  redis.call('HSET', room, 'timeline', ARGV[6])
  redis.call('SET', playback, ARGV[7])
end
for i = FIRST, #ARGV, 4 do
  local view, socket = ARGV[i + 1], ARGV[i + 2]
  local old_view, old_socket
  if old[i] then
    old_view, old_socket = old[i]:match('^([^\n]*)\n([^\n]*)')
    if old_socket ~= '' and old_socket ~= socket then
      redis.call('SREM', online, old_socket)
    end
  end
  if ARGV[i + 3] == '' then
    redis.call('HDEL', seats, ARGV[i])
    looks_different = looks_different or old_view ~= nil
  else
    redis.call('HSET', seats, ARGV[i], view .. '\n' .. socket .. '\n' .. ARGV[i + 3])
    if socket ~= '' and socket ~= old_socket then
      redis.call('SADD', online, socket)
    end
    looks_different = looks_different or old_view ~= view
  end
end
redis.call('RPUSH', log, ARGV[12])
redis.call('LTRIM', log, -tonumber(ARGV[15]), -1)
redis.call(ARGV[13], ARGV[14], ARGV[12])

if ARGV[10] == '1' then
  redis.call('DEL', playback, participants, online, seats)
elseif looks_different then
  local taken, views = redis.call('HGETALL', seats), {}
  for i = 1, #taken, 2 do
    views[#views + 1] = { tonumber(taken[i]), taken[i + 1]:match('^[^\n]*') }
  end
  table.sort(views, function(a, b) return a[1] < b[1] end)
  for i = 1, #views do
    views[i] = views[i][2]
  end
  redis.call('SET', participants, '[' .. table.concat(views, ',') .. ']')
end
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, ARGV[11])
end
return { 'done' }
