"""The steps of the Redis bus that have to be atomic, as scripts for Redis 7 or Valkey; no clock takes part in any order.

Keys, all behind one prefix with one hash tag: `a:NAME` (hash of an inbox: counts, settings, who waits), `s:NAME:P` (its stream of one
priority, read by the consumer group `g`), `v:NAME:P` (sorted set of what is unacknowledged, by the millisecond of its redelivery), `i:NAME`
(message id to priority and number of what is unacknowledged), `k:NAME` (what a cancelled receive gave back), `x0:NAME` and `x1:NAME` (ids
that senders gave, in two generations), `g:NAME` (members of a group) and `m:NAME` (groups of an agent), `agents`, `dead`, `stats`, `exp`
(what expires) and `vis` (inboxes by their next redelivery), `rq` (requests in flight), `rp:OBJECT` (replies to fetch), `alive:OBJECT`,
`lanes:OBJECT` (the last answer of each lane, so that a call whose answer was lost is repeated without being done twice).
"""

from __future__ import annotations

__all__ = ["CONTROL", "SEND", "TAKE"]

# ARGV: object, lane, number of the call, whether it is a repetition, milliseconds now (empty: the server's clock).
_PRELUDE = """
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
local HEAD = '>BBddBBBBBI4'
local RANK = 17592186044416
local totals, wake, boxes, buried = {}, {}, {}, false

local function count(what, by) totals[what] = (totals[what] or 0) + by end

local function tell(objects, kind, name)
  local note = struct.pack('>c1Bc0', kind, #name, name)
  for one in string.gmatch(objects, '[^,]+') do
    local notes = wake[one]
    if notes then notes[#notes + 1] = note else wake[one] = {note} end
  end
end

local function with_me(objects)
  if objects == '' then return me end
  if string.find(objects, me, 1, true) then return objects end
  return objects .. ',' .. me
end

local function box(name)
  local b = boxes[name]
  if b ~= nil then return b end
  local key = P .. 'a:' .. name
  local v = call('HMGET', key, 'settings', 'counts', 'w', 'b')
  b = false
  if v[1] then
    local c, f, k, t, m, own = string.match(v[1], '^(%d+) (%S+) (%S+) (%d+) (%d+) (%S+)$')
    b = {name = name, key = key, stream = P .. 's:' .. name .. ':', held = P .. 'v:' .. name .. ':',
      ids = P .. 'i:' .. name, back = P .. 'k:' .. name, w = v[3] or '', b = v[4] or '',
      c = tonumber(c), f = f, k = k, t = tonumber(t), m = tonumber(m), own = own,
      q = 0, n = {[0] = 0, [1] = 0, [2] = 0}, u = 0, z = 0, d = 0, e = 0, h = 0}
    if v[2] then b.q, b.n[0], b.n[1], b.n[2], b.u, b.z, b.d, b.e, b.h = struct.unpack('>ddddddddd', v[2]) end
  end
  boxes[name] = b
  return b
end

-- Nobody but its owner acts for an agent, as long as that lives.
local function others(b) return b.own ~= me and call('EXISTS', P .. 'alive:' .. b.own) == 1 end

local function total(b) return b.n[0] + b.n[1] + b.n[2] + b.u + b.z end

local function finish(result)
  for _, b in pairs(boxes) do
    if b and b.dirty then
      local counts = struct.pack('>ddddddddd', b.q, b.n[0], b.n[1], b.n[2], b.u, b.z, b.d, b.e, b.h)
      call('HSET', b.key, 'counts', counts, 'w', b.w, 'b', b.b)
    end
  end
  for what, by in pairs(totals) do
    if by ~= 0 then call('HINCRBY', P .. 'stats', what, by) end
  end
  if buried then call('LTRIM', P .. 'dead', -10000, -1) end
  for one, notes in pairs(wake) do call('PUBLISH', P .. 'to:' .. one, table.concat(notes)) end
  call('HSET', lanes, 'n' .. lane, ARGV[3], 'r' .. lane, result)
  return result
end

local function bury(name, reason, attempts, record)
  call('RPUSH', P .. 'dead', struct.pack('>dHBBc0', now, attempts, reason, #name, name) .. record)
  count('dead_letters', 1)
  buried = true
end
local UNKNOWN, UNREGISTERED, FULL, EXPIRED, ATTEMPTS = 0, 1, 2, 3, 4

local function facts(record)
  local flags, rank, expires, sent, lr, ls, li, lt, lc, lb, at = struct.unpack(HEAD, record)
  local id_at = at + lr + ls
  return math.floor(flags / 8) % 2 == 1 and expires * 1000 or nil, string.sub(record, id_at, id_at + li - 1)
end

local function mark(b, p, seq) return struct.pack('>Bc0', #b.name, b.name) .. p .. ':' .. seq end
local function text(number) return string.format('%.0f', number) end
local function entry(seq) return seq .. '-0' end

local function room(b)
  b.dirty = true
  if b.b ~= '' then
    tell(b.b, 'b', b.name)
    b.b = ''
  end
end

-- What is unacknowledged leaves the inbox.
local function settle(b, p, seq, record)
  pcall('XACK', b.stream .. p, 'g', entry(seq))
  pcall('XDEL', b.stream .. p, entry(seq))
  if call('ZREM', b.held .. p, seq) == 1 then b.u = b.u - 1 end
  if record then
    local expires, id = facts(record)
    call('HDEL', b.ids, id)
    if expires then call('ZREM', P .. 'exp', mark(b, p, seq)) end
  end
  room(b)
end

local function stored(b, p, seq)
  local found = pcall('XRANGE', b.stream .. p, entry(seq), entry(seq))
  if found.err or #found == 0 then return nil end
  return found[1][2][2]
end

-- A group that is not there is made from the start of its stream: what the stream still has waits (again), what it has not is lost.
local function regroup(b, p)
  pcall('XGROUP', 'CREATE', b.stream .. p, 'g', '0', 'MKSTREAM')
  local length, held = pcall('XLEN', b.stream .. p), call('ZCARD', b.held .. p)
  if type(length) ~= 'number' then length = 0 end
  local lost = b.n[p] + held - length
  if lost > 0 then count('lost', lost) end
  b.n[p] = length
  b.u = math.max(0, b.u - held)
  call('DEL', b.held .. p)
  room(b)
end

local function missing(b, p)
  count('lost', b.n[p])
  b.n[p] = 0
  room(b)
end

-- What waits and has expired, of whichever inbox.
local function bury_expired()
  for _, member in ipairs(call('ZRANGEBYSCORE', P .. 'exp', '-inf', text(now), 'LIMIT', 0, 1000)) do
    local name, at = struct.unpack('>Bc0', member)
    local p, seq = string.match(string.sub(member, at), '^(%d):(%d+)$')
    p = tonumber(p)
    local b, later = box(name), nil
    if b then
      local score = call('ZSCORE', b.held .. p, seq)
      local record = stored(b, p, seq)
      if score and tonumber(score) > now then
        later = score
      elseif record then
        if score then settle(b, p, seq, record)
        else
          call('XDEL', b.stream .. p, entry(seq))
          b.n[p] = math.max(0, b.n[p] - 1)
          room(b)
        end
        count('expired', 1)
        bury(name, EXPIRED, 0, record)
      elseif b.z > 0 then
        local rank = text(p * RANK + tonumber(seq))
        for _, one in ipairs(call('ZRANGEBYSCORE', b.back, rank, rank)) do
          call('ZREM', b.back, one)
          b.z = b.z - 1
          room(b)
          count('expired', 1)
          bury(name, EXPIRED, 0, string.match(one, '^%d+:(.*)$'))
        end
      end
    end
    if later then call('ZADD', P .. 'exp', later, member) else call('ZREM', P .. 'exp', member) end
  end
end

local function put(b, p, record, expires)
  b.dirty = true
  b.q = b.q + 1
  local added = pcall('XADD', b.stream .. p, b.q .. '-0', 'd', record)
  if type(added) == 'table' and added.err then
    -- Somebody else wrote here, or the numbers were forgotten: go on behind the last there is.
    local about = pcall('XINFO', 'STREAM', b.stream .. p)
    if about.err then return false end
    for at = 1, #about, 2 do
      if about[at] == 'last-generated-id' then b.q = math.max(b.q, tonumber(string.match(about[at + 1], '^%d+')) + 1) end
    end
    added = pcall('XADD', b.stream .. p, b.q .. '-0', 'd', record)
    if type(added) == 'table' and added.err then return false end
  end
  b.n[p] = b.n[p] + 1
  if expires and expires < 9e15 then call('ZADD', P .. 'exp', text(math.max(0, expires)), mark(b, p, text(b.q))) end
  if b.w ~= '' then
    tell(b.w, 'w', b.name)
    b.w = ''
  end
  return true
end
"""

# ARGV[6]: records, one behind the other. Answers one word for each.
_SEND = """
local blob, pos, out, stuck = ARGV[6], 1, {}, {}

local function is_new(b, id)
  if b.h == 1 and call('SISMEMBER', P .. 'x1:' .. b.name, id) == 1 then return false end
  if call('SADD', P .. 'x0:' .. b.name, id) == 0 then return false end
  b.e = b.e + 1
  b.dirty = true
  if b.e >= 100000 then
    call('RENAME', P .. 'x0:' .. b.name, P .. 'x1:' .. b.name)
    b.e, b.h = 0, 1
  end
  return true
end

local function drop(b, p)
  if b.z > 0 then
    local found = call('ZRANGEBYSCORE', b.back, text(p * RANK), text((p + 1) * RANK - 1), 'LIMIT', 0, 1)
    if #found == 1 then
      call('ZREM', b.back, found[1])
      b.z = b.z - 1
      bury(b.name, FULL, 0, string.match(found[1], '^%d+:(.*)$'))
      return true
    end
  end
  if b.u > 0 then
    for _, seq in ipairs(call('ZRANGEBYSCORE', b.held .. p, 0, 0, 'LIMIT', 0, 1)) do
      local record = stored(b, p, seq)
      settle(b, p, seq, record)
      if record then
        bury(b.name, FULL, 0, record)
        return true
      end
      count('lost', 1)
    end
  end
  if b.n[p] == 0 then return false end
  local from = '-'
  if b.u > 0 or b.k == 'manual' then
    local groups = pcall('XINFO', 'GROUPS', b.stream .. p)
    if not groups.err and groups[1] then
      local about = groups[1]
      for at = 1, #about, 2 do
        if about[at] == 'last-delivered-id' then from = '(' .. about[at + 1] end
      end
    end
  end
  local first = pcall('XRANGE', b.stream .. p, from, '+', 'COUNT', 1)
  if first.err or #first == 0 then
    missing(b, p)
    return false
  end
  call('XDEL', b.stream .. p, first[1][1])
  b.n[p] = b.n[p] - 1
  local record = first[1][2][2]
  if facts(record) then call('ZREM', P .. 'exp', mark(b, p, string.match(first[1][1], '^%d+'))) end
  bury(b.name, FULL, 0, record)
  return true
end

-- The room there is, and milliseconds until one that is unacknowledged may have died (-1: none).
local function full(b)
  local first
  for p = 0, 2 do
    local one = b.u > 0 and call('ZRANGEBYSCORE', b.held .. p, '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
    if one and (not first or tonumber(one) < first) then first = tonumber(one) end
  end
  return 'B' .. text(b.c) .. ':' .. text(first and first - now or -1)
end

local function deliver(b, m, alone)
  if alone and stuck[b.name] then return 'B' .. text(b.c) .. ':-1' end
  local new = not m.given or is_new(b, m.id)
  if not new then
    count('duplicates', 1)
    return 'D'
  end
  if total(b) >= b.c then
    bury_expired()
    if b.u > 0 and b.d <= now then
      for p = 0, 2 do due(b, p, 0, nil) end
      next_due(b)
    end
  end
  if total(b) >= b.c then
    if b.f == 'drop_oldest' then
      count('dropped', 1)
      local dropped = false
      for p = 2, m.p, -1 do
        dropped = drop(b, p)
        if dropped then break end
      end
      if not dropped and total(b) >= b.c then
        b.dirty = true
        count('sent', 1)
        bury(b.name, FULL, 0, m.record)
        return 'd'
      end
    else
      if m.given then
        call('SREM', P .. 'x0:' .. b.name, m.id)
        call('SREM', P .. 'x1:' .. b.name, m.id)
      end
      if alone and b.f == 'block' then
        stuck[b.name] = true
        b.b = with_me(b.b)
        b.dirty = true
        return full(b)
      end
      count('rejected', 1)
      if not alone then bury(b.name, FULL, 0, m.record) end
      return 'R' .. text(b.c) .. ':-1'
    end
  end
  if not put(b, m.p, m.record, m.expires) then return 'X' end
  count('sent', 1)
  return 'K'
end

local function deliver_all(names, m, sender)
  local took = 0
  for _, name in ipairs(names) do
    if name ~= sender then
      local b = box(name)
      local code = b and deliver(b, m, false)
      if code == 'K' then took = took + 1 end
    end
  end
  return took
end

while pos <= #blob do
  local flags, p, expires, sent, lr, ls, li, lt, lc, lb, at = struct.unpack(HEAD, blob, pos)
  local stop = at + lr + ls + li + lt + lc + lb
  local kind = flags % 4
  local to, id_at = string.sub(blob, at, at + lr - 1), at + lr + ls
  local m = {p = p, record = string.sub(blob, pos, stop - 1), given = math.floor(flags / 4) % 2 == 1,
    expires = math.floor(flags / 8) % 2 == 1 and expires * 1000 or nil}
  if m.given then m.id = string.sub(blob, id_at, id_at + li - 1) end
  local answer
  if kind == 3 then
    answer = text(deliver_all(call('SMEMBERS', P .. 'agents'), m, string.sub(blob, at + lr, id_at - 1)))
  elseif kind == 2 then
    local correlation = string.sub(blob, id_at + li + lt, id_at + li + lt + lc - 1)
    local object = call('HGET', P .. 'rq', correlation)
    if object then
      call('HDEL', P .. 'rq', correlation)
      call('RPUSH', P .. 'rp:' .. object, m.record)
      call('PEXPIRE', P .. 'rp:' .. object, 600000)
      tell(object, 'r', '')
      answer = 'K'
    else
      count('late_replies', 1)
      answer = 'L'
    end
  else
    local b = box(to)
    local correlation = kind == 1 and string.sub(blob, id_at + li + lt, id_at + li + lt + lc - 1)
    if correlation and not box(string.sub(blob, at + lr, id_at - 1)) then
      answer = 'S'
    elseif correlation and call('HEXISTS', P .. 'rq', correlation) == 1 then
      answer = 'C'
    elseif b then
      answer = deliver(b, m, true)
    else
      local members = call('SMEMBERS', P .. 'g:' .. to)
      if #members > 0 then
        deliver_all(members, m, string.sub(blob, at + lr, id_at - 1))
        answer = 'K'
      else
        -- One that waited for room was meant for an inbox that was closed meanwhile.
        bury(to, math.floor(flags / 16) % 2 == 1 and UNREGISTERED or UNKNOWN, 0, m.record)
        answer = 'U'
      end
    end
    if correlation and string.find('KDd', answer, 1, true) then call('HSET', P .. 'rq', correlation, me) end
  end
  out[#out + 1] = answer
  pos = stop
end
return finish(table.concat(out, ' '))
"""

_HANDS = """
-- What is due again, those that nobody may have any more buried; `most` 0 only buries.
local function due(b, p, most, give)
  local left = most
  local found = call('ZRANGEBYSCORE', b.held .. p, '-inf', text(now), 'WITHSCORES', 'LIMIT', 0, 1000)
  local scores, seqs = {}, {}
  for at = 1, #found, 2 do
    seqs[#seqs + 1] = found[at]
    scores[found[at]] = tonumber(found[at + 1])
  end
  table.sort(seqs, function(one, other) return tonumber(one) < tonumber(other) end)
  for _, seq in ipairs(seqs) do
    local record = stored(b, p, seq)
    if not record then
      settle(b, p, seq, nil)
      count('lost', 1)
    else
      local pending = pcall('XPENDING', b.stream .. p, 'g', entry(seq), entry(seq), 1)
      local tries = 1
      if not pending.err and pending[1] then tries = pending[1][4] end
      local expires = facts(record)
      if expires and expires <= now then
        settle(b, p, seq, record)
        count('expired', 1)
        bury(b.name, EXPIRED, tries, record)
      elseif scores[seq] > 0 and tries >= b.m then
        settle(b, p, seq, record)
        bury(b.name, ATTEMPTS, tries, record)
      elseif left > 0 then
        left = left - 1
        local attempt = scores[seq] > 0 and tries + 1 or tries
        if b.k == 'manual' then
          pcall('XCLAIM', b.stream .. p, 'g', me, 0, entry(seq), 'RETRYCOUNT', attempt, 'JUSTID')
          call('ZADD', b.held .. p, text(now + b.t), seq)
          local _, id = facts(record)
          call('HSET', b.ids, id, p .. ':' .. seq)
          call('ZADD', P .. 'vis', 'LT', text(now + b.t), b.name)
        else
          settle(b, p, seq, record)
          count('acknowledged', 1)
        end
        count(attempt > 1 and 'redelivered' or 'delivered', 1)
        give(p, attempt, tonumber(seq), record)
      end
    end
  end
  return left
end

local function next_due(b)
  local first
  for p = 0, 2 do
    local one = call('ZRANGE', b.held .. p, 0, 0, 'WITHSCORES')
    if one[2] and (not first or tonumber(one[2]) < first) then first = tonumber(one[2]) end
  end
  b.d = first or 0
  b.dirty = true
end
"""

# ARGV[6 ..]: operations. T name most | A name ids | G name mode (packed) | P. Answers a length and an answer for each.
_TAKE = """
local out = {}
local function answer(text)
  out[#out + 1] = struct.pack('>I4', #text)
  out[#out + 1] = text
end

local function fresh(b, p, left, give)
  local manual = b.k == 'manual'
  local s = b.stream .. p
  local again = true
  while b.n[p] > 0 and left > 0 do
    local asked = math.min(left, 500)
    local found
    if manual then found = pcall('XREADGROUP', 'GROUP', 'g', me, 'COUNT', asked, 'STREAMS', s, '>')
    else found = pcall('XREADGROUP', 'GROUP', 'g', me, 'COUNT', asked, 'NOACK', 'STREAMS', s, '>') end
    if found and found.err then
      if again and string.find(found.err, 'NOGROUP', 1, true) then
        again = false
        regroup(b, p)
      else
        missing(b, p)
      end
    elseif not found or #found == 0 then
      missing(b, p)
    else
      local scores, ids, gone, taken, foreign, last = {}, {}, {}, 0, false, nil
      for _, one in ipairs(found[1][2]) do
        last = one[1]
        local record = one[2] and one[2][2] or ''
        local sound = one[2] and one[2][1] == 'd' and #record >= 27 and string.match(last, '^(%d+)%-0$')
        local flags, rank, expires, sent, lr, ls, li, lt, lc, lb, at
        if sound then
          flags, rank, expires, sent, lr, ls, li, lt, lc, lb, at = struct.unpack(HEAD, record)
          sound = at + lr + ls + li + lt + lc + lb == #record + 1 and sound
        end
        if not sound then
          gone[#gone + 1] = last
          foreign = true
          count('corrupt', 1)
        else
          b.n[p] = math.max(0, b.n[p] - 1)
          expires = math.floor(flags / 8) % 2 == 1 and expires * 1000
          if expires and expires <= now then
            gone[#gone + 1] = last
            call('ZREM', P .. 'exp', mark(b, p, sound))
            count('expired', 1)
            bury(b.name, EXPIRED, 0, record)
          else
            taken = taken + 1
            give(p, 1, tonumber(sound), record)
            if manual then
              scores[#scores + 1] = text(now + b.t)
              scores[#scores + 1] = sound
              ids[#ids + 1] = string.sub(record, at + lr + ls, at + lr + ls + li - 1)
              ids[#ids + 1] = p .. ':' .. sound
            else
              if expires then call('ZREM', P .. 'exp', mark(b, p, sound)) end
              gone[#gone + 1] = last
            end
          end
        end
      end
      b.dirty = true
      left = left - taken
      count('delivered', taken)
      if #gone > 0 then
        if manual then call('XACK', s, 'g', unpack(gone)) end
        if manual or b.u > 0 then call('XDEL', s, unpack(gone))
        else
          local ms, sub = string.match(last, '^(%d+)%-(%d+)$')
          call('XTRIM', s, 'MINID', '=', ms .. '-' .. text(tonumber(sub) + 1))
        end
        -- Foreign entries were never counted as waiting, or all were.
        if foreign then b.n[p] = math.max(0, call('XLEN', s) - call('ZCARD', b.held .. p) - (manual and #ids / 2 or 0)) end
        room(b)
      end
      if #ids > 0 then
        call('ZADD', b.held .. p, unpack(scores))
        call('HSET', b.ids, unpack(ids))
        call('ZADD', P .. 'vis', 'LT', text(now + b.t), b.name)
        b.u = b.u + taken
        if b.d == 0 or now + b.t < b.d then b.d = now + b.t end
      elseif not manual then
        count('acknowledged', taken)
      end
    end
  end
  return left
end

local function take(b, most)
  local got, left = {}, most
  local function give(p, attempt, seq, record)
    got[#got + 1] = struct.pack('>BHdI4', p, attempt, seq, #record)
    got[#got + 1] = record
  end
  -- A clock that was set back would keep these for longer than their time.
  if b.u > 0 and b.d > now + b.t then
    for p = 0, 2 do
      for _, seq in ipairs(call('ZRANGEBYSCORE', b.held .. p, '(' .. text(now + b.t), '+inf', 'LIMIT', 0, 1000)) do
        call('ZADD', b.held .. p, text(now + b.t), seq)
      end
    end
    next_due(b)
  end
  local is_due = b.u > 0 and b.d <= now
  for p = 0, 2 do
    if is_due then left = due(b, p, left, give) end
    if b.z > 0 and left > 0 then
      for _, one in ipairs(call('ZRANGEBYSCORE', b.back, text(p * RANK), text((p + 1) * RANK - 1), 'LIMIT', 0, left)) do
        call('ZREM', b.back, one)
        b.z = b.z - 1
        local seq, record = string.match(one, '^(%d+):(.*)$')
        local expires = facts(record)
        if expires then call('ZREM', P .. 'exp', mark(b, p, seq)) end
        if expires and expires <= now then
          count('expired', 1)
          bury(b.name, EXPIRED, 0, record)
        else
          left = left - 1
          count('delivered', 1)
          count('acknowledged', 1)
          give(p, 1, tonumber(seq), record)
        end
        room(b)
      end
    end
    if left > 0 then left = fresh(b, p, left, give) end
  end
  if is_due then next_due(b) end
  if left == most then
    b.w = with_me(b.w)
    b.dirty = true
    -- When something is due again, in milliseconds from now.
    return struct.pack('>d', b.u > 0 and math.max(0, b.d - now) or -1)
  end
  -- Who took the last one is told of the next, and need not ask before.
  if total(b) == 0 then b.w = with_me(b.w) end
  return table.concat(got), total(b) == 0
end

local function unpacked(names)
  local list, pos = {}, 1
  while pos <= #names do
    list[#list + 1], pos = struct.unpack('>Bc0', names, pos)
  end
  return list
end

local function acknowledge(b, names)
  local ids, known = unpacked(names), 0
  for first = 1, #ids, 500 do
    local last = math.min(first + 499, #ids)
    local places, by, twice = call('HMGET', b.ids, unpack(ids, first, last)), {[0] = {}, [1] = {}, [2] = {}}, {}
    call('HDEL', b.ids, unpack(ids, first, last))
    for _, place in ipairs(places) do
      if place and not twice[place] then
        twice[place] = true
        local seqs = by[tonumber(string.sub(place, 1, 1))]
        seqs[#seqs + 1] = string.sub(place, 3)
      end
    end
    for p = 0, 2 do
      local seqs = by[p]
      if #seqs > 0 then
        local gone = call('ZREM', b.held .. p, unpack(seqs))
        known = known + gone
        b.u = b.u - gone
        for at = 1, #seqs do seqs[at] = seqs[at] .. '-0' end
        pcall('XACK', b.stream .. p, 'g', unpack(seqs))
        pcall('XDEL', b.stream .. p, unpack(seqs))
      end
    end
  end
  if b.u == 0 then b.d = 0 end
  if known > 0 then room(b) end
  count('acknowledged', known)
  return known
end

local function give_back(b, packed)
  local pos = 1
  while pos <= #packed do
    local p, attempt, seq, length, at = struct.unpack('>BHdI4', packed, pos)
    local record = string.sub(packed, at, at + length - 1)
    local expires, id = facts(record)
    pos = at + length
    seq = text(seq)
    if b.k == 'manual' then
      if call('ZSCORE', b.held .. p, seq) then
        call('ZADD', b.held .. p, 0, seq)
        call('HDEL', b.ids, id)
        b.d = 1
        count(attempt > 1 and 'redelivered' or 'delivered', -1)
      end
    else
      call('ZADD', b.back, text(p * RANK + tonumber(seq)), seq .. ':' .. record)
      if expires and expires < 9e15 then call('ZADD', P .. 'exp', text(math.max(0, expires)), mark(b, p, seq)) end
      b.z = b.z + 1
      count(attempt > 1 and 'redelivered' or 'delivered', -1)
      count('acknowledged', -1)
    end
  end
  b.dirty = true
  if b.w ~= '' then
    tell(b.w, 'w', b.name)
    b.w = ''
  end
end

local at = 6
while at <= #ARGV do
  local kind = ARGV[at]
  if kind == 'P' then
    local records = call('LPOP', P .. 'rp:' .. me, 500)
    answer(records and table.concat(records) or '')
    at = at + 1
  else
    local b = box(ARGV[at + 1])
    if kind == 'T' then
      if not b then answer('U')
      elseif others(b) then answer('O')
      else
        local found, was_last = take(b, tonumber(ARGV[at + 2]))
        answer((was_last and 'E' or 'K') .. found)
      end
      at = at + 3
    elseif kind == 'A' then
      if not b then answer('U')
      elseif others(b) then answer('O')
      else answer(text(acknowledge(b, ARGV[at + 2]))) end
      at = at + 3
    else
      if b then give_back(b, ARGV[at + 2]) end
      answer(b and 'K' or 'U')
      at = at + 3
    end
  end
end
return finish(table.concat(out))
"""

# ARGV[6]: name of the operation, then its arguments.
_CONTROL = """
local what, name = ARGV[6], ARGV[7]

local function forget(name)
  call('DEL', P .. 'a:' .. name, P .. 'i:' .. name, P .. 'k:' .. name, P .. 'x0:' .. name, P .. 'x1:' .. name)
  for p = 0, 2 do call('DEL', P .. 's:' .. name .. ':' .. p, P .. 'v:' .. name .. ':' .. p) end
  call('ZREM', P .. 'vis', name)
end

local function sweep()
  bury_expired()
  for _, name in ipairs(call('ZRANGEBYSCORE', P .. 'vis', '-inf', text(now), 'LIMIT', 0, 1000)) do
    local b = box(name)
    call('ZREM', P .. 'vis', name)
    if b then
      for p = 0, 2 do
        due(b, p, 0, nil)
        local later = call('ZRANGEBYSCORE', b.held .. p, '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
        if later[2] then call('ZADD', P .. 'vis', 'LT', later[2], name) end
      end
      next_due(b)
    end
  end
end

if what == 'register' then
  local capacity, overflow, mode, visibility, attempts, again = unpack(ARGV, 8, 13)
  if call('EXISTS', P .. 'g:' .. name) == 1 then return finish('G') end
  local b = box(name)
  if b and (others(b) or again ~= '1' and b.own == me) then return finish('N') end
  call('HSET', P .. 'a:' .. name, 'settings', table.concat({capacity, overflow, mode, visibility, attempts, me}, ' '))
  call('SADD', P .. 'agents', name)
  local found = b
  boxes[name] = nil
  b = box(name)
  for p = 0, 2 do
    if not found then
      -- Streams whose record was lost: what they hold waits.
      call('DEL', P .. 'v:' .. name .. ':' .. p)
      if call('EXISTS', b.stream .. p) == 1 then
        pcall('XGROUP', 'DESTROY', b.stream .. p, 'g')
        regroup(b, p)
        b.q = math.max(b.q, 1)
      end
    elseif b.own ~= found.own and b.u > 0 then
      -- Whoever had these is dead: they are due.
      for _, seq in ipairs(call('ZRANGEBYSCORE', b.held .. p, '(0', '+inf')) do call('ZADD', b.held .. p, 1, seq) end
      b.d = 1
      b.dirty = true
    end
  end
  if not found then b.z = call('ZCARD', b.back) end
  b.dirty = true
  return finish('K')

elseif what == 'unregister' then
  local b = box(name)
  if not b then return finish('U') end
  if others(b) then return finish('O') end
  for p = 0, 2 do
    local from = '-'
    while true do
      local page = pcall('XRANGE', b.stream .. p, from, '+', 'COUNT', 500)
      if page.err or #page == 0 then break end
      for _, one in ipairs(page) do
        local record = one[2][2]
        if one[2][1] == 'd' and #record >= 27 then
          local seq = string.match(one[1], '^%d+')
          local tries = 0
          if call('ZSCORE', b.held .. p, seq) then
            local pending = pcall('XPENDING', b.stream .. p, 'g', one[1], one[1], 1)
            tries = not pending.err and pending[1] and pending[1][4] or 1
          end
          if facts(record) then call('ZREM', P .. 'exp', mark(b, p, seq)) end
          bury(name, UNREGISTERED, tries, record)
        end
      end
      from = '(' .. page[#page][1]
    end
  end
  for _, one in ipairs(call('ZRANGE', b.back, 0, -1)) do bury(name, UNREGISTERED, 0, string.match(one, '^%d+:(.*)$')) end
  for _, group in ipairs(call('SMEMBERS', P .. 'm:' .. name)) do call('SREM', P .. 'g:' .. group, name) end
  call('DEL', P .. 'm:' .. name)
  call('SREM', P .. 'agents', name)
  if b.w ~= '' then tell(b.w, 'w', name) end
  if b.b ~= '' then tell(b.b, 'b', name) end
  boxes[name] = nil
  forget(name)
  return finish('K')

elseif what == 'join' or what == 'leave' then
  local group = ARGV[8]
  local b = box(name)
  if not b then return finish('U') end
  if others(b) then return finish('O') end
  if box(group) then return finish('N') end
  local step = what == 'join' and 'SADD' or 'SREM'
  call(step, P .. 'g:' .. group, name)
  call(step, P .. 'm:' .. name, group)
  return finish('K')

elseif what == 'beat' then
  call('SET', P .. 'alive:' .. me, '1', 'PX', ARGV[7])
  call('HSET', lanes, 'beat', '1')
  call('PEXPIRE', lanes, 600000)
  call('SET', P .. 'born', ARGV[8], 'NX')
  local heard = pcall('PUBSUB', 'NUMSUB', P .. 'to:' .. me)
  return finish(call('GET', P .. 'born') .. ' ' .. (heard[2] or 1))

elseif what == 'bye' then
  call('DEL', P .. 'alive:' .. me, P .. 'rp:' .. me)
  finish('K')
  call('DEL', lanes)
  return 'K'

elseif what == 'count' then
  count(name, tonumber(ARGV[8]))
  return finish('K')

elseif what == 'forget' then
  return finish(tostring(call('HDEL', P .. 'rq', name)))

elseif what == 'sweep' then
  sweep()
  local more = call('ZCOUNT', P .. 'exp', '-inf', text(now)) + call('ZCOUNT', P .. 'vis', '-inf', text(now))
  return finish(more > 0 and '1' or '0')

elseif what == 'dead' then
  -- Not kept for a repetition: it changes nothing, and may be large.
  local out = {}
  for _, one in ipairs(call('LRANGE', P .. 'dead', name, ARGV[8])) do
    out[#out + 1] = struct.pack('>I4', #one)
    out[#out + 1] = one
  end
  return table.concat(out)

else
  local found, queued = call('HGETALL', P .. 'stats'), {}
  for _, one in ipairs(call('SMEMBERS', P .. 'agents')) do
    local b = box(one)
    if b then queued[#queued + 1] = struct.pack('>Bc0I4', #one, one, total(b)) end
  end
  return table.concat(found, ' ') .. '\\n' .. table.concat(queued)
end
"""

# Nothing is sent into a Redis that is full; taking, acknowledging and leaving are what makes room in it.
SEND = "#!lua\n" + _PRELUDE + _HANDS + _SEND
TAKE = "#!lua flags=allow-oom\n" + _PRELUDE + _HANDS + _TAKE
CONTROL = "#!lua flags=allow-oom\n" + _PRELUDE + _HANDS + _CONTROL
