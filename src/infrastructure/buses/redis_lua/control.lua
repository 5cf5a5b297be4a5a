-- ARGV[6 ..]: operations, each a number of words and the words. Answers a length and an answer for each.
-- What a bus has beside its inboxes. Without an inbox nothing can wait in it, and these are all there is.
local BESIDE = {'born', 'stats', 'dead', 'exp', 'vis', 'rq'}
local HOUR, WEEK = 3600000, 604800000

-- A bus without inboxes is forgotten when nobody beats any more: after an hour, or a week where dead letters can still be read. What has
-- more than this part of its time left is not written again.
local function fade(part)
  if call('EXISTS', P .. 'agents') == 1 then return end
  local span = call('EXISTS', P .. 'dead') == 1 and WEEK or HOUR
  for _, one in ipairs(BESIDE) do
    local left = call('PTTL', P .. one)
    if left ~= -2 and left < span * part then call('PEXPIRE', P .. one, span) end
  end
end

local function stay()
  for _, one in ipairs(BESIDE) do call('PERSIST', P .. one) end
end

-- How much of its time has to be left to what may fade, if that is looked at in this trip.
local fading
local function forget(of)
  call('DEL', P .. 'a:' .. of, P .. 'i:' .. of, P .. 'j:' .. of, P .. 'k:' .. of, P .. 'o:' .. of, P .. 'x0:' .. of, P .. 'x1:' .. of)
  for p = 0, 2 do call('DEL', P .. 's:' .. of .. ':' .. p, P .. 'v:' .. of .. ':' .. p) end
  call('ZREM', P .. 'vis', of)
end

local function sweep()
  bury_expired()
  for _, one in ipairs(call('ZRANGEBYSCORE', P .. 'vis', '-inf', text(now), 'LIMIT', 0, 1000)) do
    local b = box(one)
    call('ZREM', P .. 'vis', one)
    if b then
      for p = 0, 2 do
        due(b, p, 0, nil)
        local later = call('ZRANGEBYSCORE', held(b, p), '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
        if later[2] then call('ZADD', P .. 'vis', 'LT', later[2], one) end
      end
      next_due(b)
    end
  end
end

-- The record of this inbox was lost, and what its streams and what of runs was opened hold waits.
local function recover(b)
  call('DEL', key('i', b), key('j', b))
  for p = 0, 2 do
    call('DEL', held(b, p))
    if call('EXISTS', stream(b, p)) == 1 then
      pcall('XGROUP', 'DESTROY', stream(b, p), 'g')
      b.q = math.max(b.q, last_number(b, p) or 0)
      regroup(b, p)
    end
  end
  b.z, b.u = call('ZCARD', key('k', b)), 0
  for _, one in ipairs(call('HKEYS', key('o', b))) do
    local p, seq = string.match(one, '^(%d):(%d+)$')
    call('ZADD', held(b, p), 0, member(tonumber(seq), 1))
    b.q = math.max(b.q, tonumber(seq))
    b.u, b.d = b.u + 1, 1
  end
end

-- Whoever had these is dead: they are due.
local function inherit(b)
  for p = 0, 2 do
    for _, one in ipairs(call('ZRANGEBYSCORE', held(b, p), '(0', '+inf')) do call('ZADD', held(b, p), 1, one) end
  end
  b.d = 1
end

local function register(name, capacity, overflow, mode, visibility, attempts, again)
  if call('EXISTS', P .. 'g:' .. name) == 1 then return 'G' end
  local found = box(name)
  if found and (others(found) or again ~= '1' and found.own == me) then return 'N' end
  if found then save(found) end
  call('HSET', P .. 'a:' .. name, 'settings', struct.pack(SETTINGS, capacity, visibility, attempts, overflow, mode, me))
  if call('SADD', P .. 'agents', name) == 1 and call('SCARD', P .. 'agents') == 1 then stay() end
  boxes[name] = nil
  local b = box(name)
  if not found then recover(b) elseif b.own ~= found.own and b.u > 0 then inherit(b) end
  b.dirty = true
  return 'K'
end

local function bury_all(b)
  for p = 0, 2 do
    local all, from = {}, '-'
    local function add(h, seq, tries)
      for at, one in ipairs(singles(h)) do all[#all + 1] = {seq = seq + at - 1, tries = tries, record = one} end
      if h.expires then call('ZREM', P .. 'exp', mark(b, p, seq)) end
    end
    for _, one in ipairs(call('ZRANGEBYSCORE', key('k', b), text(p * RANK), text((p + 1) * RANK - 1))) do
      local seq, record = string.match(one, '^(%d+):(.*)$')
      add(head(record, 1), tonumber(seq), 0)
    end
    for _, one in ipairs(call('ZRANGE', held(b, p), 0, -1)) do
      local seq, n = parsed(one)
      if n == 1 and call('HEXISTS', key('o', b), place(p, seq)) == 1 then
        local h, tries = stored(b, p, seq)
        add(h, seq, call('ZSCORE', held(b, p), one) == '0' and 0 or tries)
      end
    end
    while true do
      local page = pcall('XRANGE', stream(b, p), from, '+', 'COUNT', 100)
      if page.err or #page == 0 then break end
      for _, one in ipairs(page) do
        local h = sound(one)
        if h then
          local score, tries = call('ZSCORE', held(b, p), member(h.seq, h.n)), 0
          if score and score ~= '0' then
            local pending = pcall('XPENDING', stream(b, p), 'g', one[1], one[1], 1)
            tries = not pending.err and pending[1] and pending[1][4] or 1
          end
          add(h, h.seq, tries)
        end
      end
      from = '(' .. page[#page][1]
    end
    table.sort(all, function(one, other) return one.seq < other.seq end)
    for _, one in ipairs(all) do bury(b.name, UNREGISTERED, one.tries, one.record) end
  end
end

local function unregister(b)
  local name = b.name
  bury_all(b)
  for _, group in ipairs(call('SMEMBERS', P .. 'm:' .. name)) do call('SREM', P .. 'g:' .. group, name) end
  call('DEL', P .. 'm:' .. name)
  call('SREM', P .. 'agents', name)
  if b.w ~= '' then tell(b.w, 'w', name) end
  if b.b ~= '' then tell(b.b, 'b', name) end
  boxes[name] = nil
  forget(name)
  fading = 1
  return 'K'
end

local function change(b, group, step)
  if box(group) then return 'N' end
  call(step, P .. 'g:' .. group, b.name)
  call(step, P .. 'm:' .. b.name, group)
  return 'K'
end

local function beat(lease, born)
  call('SET', P .. 'alive:' .. me, '1', 'PX', lease)
  call('HSET', lanes, 'beat', '1')
  call('PEXPIRE', lanes, 600000)
  call('SET', P .. 'born', born, 'NX')
  fading = fading or 0.5
  local heard = pcall('PUBSUB', 'NUMSUB', P .. 'to:' .. me)
  return call('GET', P .. 'born') .. ' ' .. (heard[2] or 1)
end

-- For one who owns the agent, or whose owner is dead.
local function owned(name, act, ...)
  local b = box(name)
  if not b then return 'U' end
  if others(b) then return 'O' end
  return act(b, ...)
end

local gone = false
local function done(what, name, ...)
  if what == 'register' then return register(name, ...) end
  if what == 'unregister' then return owned(name, unregister) end
  if what == 'join' then return owned(name, change, (...), 'SADD') end
  if what == 'leave' then return owned(name, change, (...), 'SREM') end
  if what == 'beat' then return beat(name, ...) end
  if what == 'forget' then return tostring(call('HDEL', P .. 'rq', name)) end
  if what == 'count' then
    count(name, tonumber((...)))
    return 'K'
  end
  if what == 'bye' then
    call('DEL', P .. 'alive:' .. me, P .. 'rp:' .. me)
    gone, fading = true, 1
    return 'K'
  end
  sweep()
  local more = call('ZCOUNT', P .. 'exp', '-inf', text(now)) + call('ZCOUNT', P .. 'vis', '-inf', text(now))
  return more > 0 and '1' or '0'
end

local out, at = {}, 6
while at <= #ARGV do
  local number = tonumber(ARGV[at])
  local said = done(unpack(ARGV, at + 1, at + number))
  out[#out + 1] = struct.pack('>I4', #said) .. said
  at = at + number + 1
end
local result = finish(table.concat(out))
if gone then call('DEL', lanes) end
-- Behind the counts of this trip, with which a key may have begun.
if fading then fade(fading) end
return result

