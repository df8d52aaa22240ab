-- Begins or ends a try that may turn out wrong. The key ends with its window, which starts with its first try.
--
-- KEYS  the tries of one client at one thing
-- ARGV  1 'begin', 2 wrong tries there may be, 3 milliseconds of the window; answers 0, or else how many milliseconds to
--       wait, -1 where only tries under way stand against another
--       1 'right' or 'wrong', to end one; 3 as above
local counts = redis.call('HMGET', KEYS[1], 'wrong', 'under_way')
local wrong, under_way = tonumber(counts[1] or 0), tonumber(counts[2] or 0)
if ARGV[1] == 'begin' then
  if wrong >= tonumber(ARGV[2]) then
    return math.max(redis.call('PTTL', KEYS[1]), 1)
  elseif wrong + under_way >= tonumber(ARGV[2]) then
    return -1
  end
  under_way = under_way + 1
else
  under_way = math.max(under_way - 1, 0)
  if ARGV[1] == 'wrong' then
    wrong = wrong + 1
  end
end
-- Who makes no mistakes is not worth a key.
if wrong + under_way == 0 then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('HSET', KEYS[1], 'wrong', wrong, 'under_way', under_way)
if redis.call('PTTL', KEYS[1]) < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 0
