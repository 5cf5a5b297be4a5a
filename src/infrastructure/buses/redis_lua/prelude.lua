-- KEYS[1]: what all keys begin with. ARGV: object, lane, number of the call, whether it is a repetition, milliseconds now (empty: the
-- server's clock), then what each script says.
local P, me, lane = KEYS[1], ARGV[1], ARGV[2]
local call, pcall = redis.call, redis.pcall
local lanes = P .. 'lanes:' .. me
if ARGV[4] == '1' then
  local last = call('HMGET', lanes, 'n' .. lane, 'r' .. lane)
  if last[1] == ARGV[3] then return last[2] end
end
local now = tonumber(ARGV[5])
if not now then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
-- Behind this many numbers those of the next priority begin, where one sorted set holds all three.
local RANK = 17592186044416
local UNKNOWN, UNREGISTERED, FULL, EXPIRED, ATTEMPTS = 0, 1, 2, 3, 4
-- Capacity, milliseconds of visibility, attempts, the first letters of policy and mode, owner.
local SETTINGS = '>dddc1c1c16'
-- The last number given; messages that wait and entries that hold them, of each priority; unacknowledged, given back, next redelivery; ids
-- given by senders in this generation, and whether there was one before.
local COUNTS, ZEROS = '>dddddddddddd', string.rep('\0', 96)
local totals, wake, boxes, buried = {}, {}, {}, false

local function text(number) return string.format('%.0f', number) end

local function count(what, by) totals[what] = (totals[what] or 0) + by end

local function tell(objects, kind, name)
  local note = struct.pack('>c1Bc0', kind, #name, name)
  for one in string.gmatch(objects, '[^,]+') do
    local notes = wake[one]
    if notes then notes[#notes + 1] = note else wake[one] = {note} end
  end
end

local function with_me(objects)
  if objects == '' or objects == me then return me end
  if string.find(objects, me, 1, true) then return objects end
  return objects .. ',' .. me
end

local function bury(name, reason, attempts, record)
  call('RPUSH', P .. 'dead', struct.pack('>dHBBc0', now, attempts, reason, #name, name) .. record)
  count('dead_letters', 1)
  buried = true
end

local function box(name)
  local b = boxes[name]
  if b ~= nil then return b end
  local v = call('HMGET', P .. 'a:' .. name, 'settings', 'counts', 'w', 'b')
  b = false
  if v[1] then
    local c, t, a, f, k, own = struct.unpack(SETTINGS, v[1])
    local q, n0, n1, n2, m0, m1, m2, u, z, d, e, h = struct.unpack(COUNTS, v[2] or ZEROS)
    b = {name = name, c = c, t = t, a = a, block = f == 'b', drops = f == 'd', manual = k == 'm', own = own, w = v[3] or '', b = v[4] or '',
      q = q, n = {[0] = n0, n1, n2}, m = {[0] = m0, m1, m2}, u = u, z = z, d = d, e = e, h = h, dirty = false}
  end
  boxes[name] = b
  return b
end

-- Nobody but its owner acts for an agent, as long as that lives.
local function others(b) return b.own ~= me and call('EXISTS', P .. 'alive:' .. b.own) == 1 end

local function total(b) return b.n[0] + b.n[1] + b.n[2] + b.u + b.z end

local function room(b)
  b.dirty = true
  if b.b ~= '' then
    tell(b.b, 'b', b.name)
    b.b = ''
  end
end

local function key(kind, b) return P .. kind .. ':' .. b.name end
local function stream(b, p) return P .. 's:' .. b.name .. ':' .. p end
local function held(b, p) return P .. 'v:' .. b.name .. ':' .. p end

local function save(b)
  local n, m = b.n, b.m
  local counts = struct.pack(COUNTS, b.q, n[0], n[1], n[2], m[0], m[1], m[2], b.u, b.z, b.d, b.e, b.h)
  call('HSET', P .. 'a:' .. b.name, 'counts', counts, 'w', b.w, 'b', b.b)
end

local function finish(result)
  for _, b in pairs(boxes) do
    if b and b.dirty then save(b) end
  end
  for what, by in pairs(totals) do
    if by ~= 0 then call('HINCRBY', P .. 'stats', what, by) end
  end
  if buried then call('LTRIM', P .. 'dead', -10000, -1) end
  for one, notes in pairs(wake) do call('PUBLISH', P .. 'to:' .. one, table.concat(notes)) end
  call('HSET', lanes, 'n' .. lane, ARGV[3], 'r' .. lane, result)
  return result
end
