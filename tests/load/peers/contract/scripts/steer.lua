-- KEYS: participants, online, playback, seats, rate. ARGV: ttl, socket, order id, who may control, type, value, at.
local LEAD_MS, MOST_AHEAD_MS, WINDOW_MS, MOST_IN_WINDOW = 50, 2000, 1000, 10
local seat = redis.call('HGET', KEYS[4], ARGV[3])
if not seat then return { 'NOT_IN_ROOM' } end
seat = cjson.decode(seat)
if seat.socket ~= ARGV[2] then return { 'NOT_IN_ROOM' } end
local allowed = seat.role == 'owner'
  or (ARGV[4] == 'all' and seat.role ~= 'guest')
  or (ARGV[4] == 'selected' and seat.canControl)
if not allowed then return { 'UNAUTHORIZED' } end
local stored, source = redis.call('GET', KEYS[3]), ARGV[5] == 'SOURCE'
if not stored and not source then return { 'VALIDATION_ERROR' } end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest = redis.call('LINDEX', KEYS[5], MOST_IN_WINDOW - 1)
if oldest and oldest + WINDOW_MS > now then
  return { 'RATE_LIMIT_EXCEEDED', tostring(oldest + WINDOW_MS - now) }
end
redis.call('LPUSH', KEYS[5], now)
redis.call('LTRIM', KEYS[5], 0, MOST_IN_WINDOW - 1)
redis.call('PEXPIRE', KEYS[5], WINDOW_MS)

local at = now + LEAD_MS
local proposed = tonumber(ARGV[7])
if proposed and proposed >= now and proposed <= now + MOST_AHEAD_MS then at = math.floor(proposed + 0.5) end
local state, value = stored and cjson.decode(stored) or { sequenceNumber = 0 }, ARGV[6]
state.sequenceNumber = state.sequenceNumber + 1
if source then
  local sequence = state.sequenceNumber
  state = cjson.decode(value)
  state.sequenceNumber = sequence
  state.anchorServerTimeMs = now
else
  if ARGV[5] == 'SEEK' then
    state.anchorMediaTimeMs = tonumber(value)
  elseif state.isPlaying then
    local passed = (at - state.anchorServerTimeMs) * state.playbackRate
    state.anchorMediaTimeMs = math.max(0, state.anchorMediaTimeMs + passed)
  end
  if ARGV[5] == 'PLAY' then state.isPlaying = true end
  if ARGV[5] == 'PAUSE' then state.isPlaying = false end
  if ARGV[5] == 'SET_RATE' then state.playbackRate = tonumber(value) end
  state.anchorServerTimeMs = at
end
local text = cjson.encode(state)
redis.call('SET', KEYS[3], text)
for index = 1, 4 do redis.call('EXPIRE', KEYS[index], ARGV[1]) end
return { 'OK', text, at, now }
