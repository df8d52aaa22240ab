-- Answers with what has happened in a room since a change, or with all of it.
--
-- KEYS  our own: room, seats, log
-- ARGV  1 version and 2 id of the last change known; both empty if none is
local room, seats, log = unpack(KEYS)
local at = redis.call('HMGET', room, 'version', 'id', 'head', 'row', 'timeline')
if not at[1] then
  return { 'missing' }
end
if ARGV[1] ~= '' then
  local behind = tonumber(at[1]) - tonumber(ARGV[1])
  if behind == 0 and at[2] == ARGV[2] then
    return { 'behind', {} }
  elseif behind > 0 and behind <= redis.call('LLEN', log) then
    return { 'behind', redis.call('LRANGE', log, -behind, -1) }
  elseif behind < 0 then
    return { 'older' }
  end
end
return { 'whole', at[1], at[2], at[3], at[4], at[5] or '', redis.call('HGETALL', seats) }
