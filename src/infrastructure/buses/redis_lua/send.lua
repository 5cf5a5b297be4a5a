-- ARGV[6]: records, one behind the other. Answers one word for each: K sent, d sent and dropped at once, D sent before, U, S, C not known or
-- in flight, X not possible, B and R no room (the capacity, milliseconds until some may die or -1, how many of the run were sent).
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
    local found = call('ZRANGEBYSCORE', key('k', b), text(p * RANK), text((p + 1) * RANK - 1), 'LIMIT', 0, 1)
    if #found == 1 then
      call('ZREM', key('k', b), found[1])
      b.z = b.z - 1
      local seq, record = string.match(found[1], '^(%d+):(.*)$')
      if head(record, 1).expires then call('ZREM', P .. 'exp', mark(b, p, tonumber(seq))) end
      bury(b.name, FULL, 0, record)
      return true
    end
  end
  if b.u > 0 then
    for _, one in ipairs(call('ZRANGEBYSCORE', held(b, p), 0, 0, 'LIMIT', 0, 1)) do
      local seq = parsed(one)
      local h = stored(b, p, seq)
      settle(b, p, seq, h)
      if h then
        bury(b.name, FULL, 0, h.record)
        return true
      end
      count('lost', 1)
    end
  end
  if b.n[p] == 0 then return false end
  local from = '-'
  if b.u > 0 or b.manual then
    local groups = pcall('XINFO', 'GROUPS', stream(b, p))
    if not groups.err and groups[1] then
      local about = groups[1]
      for at = 1, #about, 2 do
        if about[at] == 'last-delivered-id' then from = '(' .. about[at + 1] end
      end
    end
  end
  while true do
    local first = pcall('XRANGE', stream(b, p), from, '+', 'COUNT', 1)
    if first.err or #first == 0 then
      missing(b, p)
      return false
    end
    local h = sound(first[1])
    if not h then
      from = '(' .. first[1][1]
    elseif h.n > 1 then
      open_waiting(b, p, h)
      return drop(b, p)
    else
      call('XDEL', stream(b, p), first[1][1])
      b.n[p] = b.n[p] - 1
      b.m[p] = math.max(0, b.m[p] - 1)
      if h.expires then call('ZREM', P .. 'exp', mark(b, p, h.seq)) end
      bury(b.name, FULL, 0, h.record)
      return true
    end
  end
end

-- Milliseconds until one that is unacknowledged may have died (-1: none is).
local function dies(b)
  local first
  for p = 0, 2 do
    local one = b.u > 0 and call('ZRANGEBYSCORE', held(b, p), '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
    if one and (not first or tonumber(one) < first) then first = tonumber(one) end
  end
  return first and first - now or -1
end

local function clear(b)
  bury_expired()
  if b.u > 0 and b.d <= now then
    for p = 0, 2 do due(b, p, 0, nil) end
    next_due(b)
  end
end

local function deliver(b, h, alone)
  if alone and stuck[b.name] then return 'B' .. text(b.c) .. ':-1:0' end
  local given = has(h.flags, GIVEN) and message_id(h)
  if given and not is_new(b, given) then
    count('duplicates', 1)
    return 'D'
  end
  if total(b) + h.n > b.c then clear(b) end
  local free = math.max(0, b.c - total(b))
  if free >= h.n then
    if not put(b, h, h.record, h.n) then return 'X' end
    count('sent', h.n)
    return 'K'
  end
  if b.drops then
    if h.n > 1 then
      for _, one in ipairs(singles(h)) do
        local code = deliver(b, head(one, 1), alone)
        if code == 'X' then return code end
      end
      return 'K'
    end
    count('dropped', 1)
    local dropped = false
    for p = 2, h.p, -1 do
      dropped = drop(b, p)
      if dropped then break end
    end
    if not dropped and total(b) >= b.c then
      b.dirty = true
      count('sent', 1)
      bury(b.name, FULL, 0, h.record)
      return 'd'
    end
    if not put(b, h, h.record, 1) then return 'X' end
    count('sent', 1)
    return 'K'
  end
  if given then
    call('SREM', P .. 'x0:' .. b.name, given)
    call('SREM', P .. 'x1:' .. b.name, given)
  end
  if free > 0 then
    if not put(b, h, first_of(h, free), free) then return 'X' end
    count('sent', free)
  end
  if alone and b.block then
    stuck[b.name] = true
    b.b = with_me(b.b)
    b.dirty = true
    return 'B' .. text(b.c) .. ':' .. text(dies(b)) .. ':' .. text(free)
  end
  count('rejected', h.n - free)
  if not alone then
    local all = singles(h)
    for at = free + 1, #all do bury(b.name, FULL, 0, all[at]) end
  end
  return 'R' .. text(b.c) .. ':-1:' .. text(free)
end

local function deliver_all(names, h)
  local took, from = 0, sender(h)
  for _, name in ipairs(names) do
    if name ~= from then
      local b = box(name)
      if b and deliver(b, h, false) == 'K' then took = took + 1 end
    end
  end
  return took
end

local function reply(h)
  local object = call('HGET', P .. 'rq', correlation(h))
  if not object then
    count('late_replies', 1)
    return 'L'
  end
  call('HDEL', P .. 'rq', correlation(h))
  call('RPUSH', P .. 'rp:' .. object, h.record)
  call('PEXPIRE', P .. 'rp:' .. object, 600000)
  tell(object, 'r', '')
  return 'K'
end

local function send(h, asked)
  if asked and not box(sender(h)) then return 'S' end
  if asked and call('HEXISTS', P .. 'rq', asked) == 1 then return 'C' end
  local to = recipient(h)
  local b = box(to)
  if b then return deliver(b, h, true) end
  local members = call('SMEMBERS', P .. 'g:' .. to)
  if #members > 0 then
    deliver_all(members, h)
    return 'K'
  end
  -- One that waited for room was meant for an inbox that was closed meanwhile.
  local reason = has(h.flags, WAITED) and UNREGISTERED or UNKNOWN
  for _, one in ipairs(singles(h)) do bury(to, reason, 0, one) end
  return 'U'
end

while pos <= #blob do
  local h = head(blob, pos)
  pos = pos + h.size
  local kind, answer = h.flags % 4, nil
  if kind == 3 then answer = text(deliver_all(call('SMEMBERS', P .. 'agents'), h))
  elseif kind == 2 then answer = reply(h)
  else
    local asked = kind == 1 and correlation(h)
    answer = send(h, asked)
    if asked and string.find('KDd', answer, 1, true) then call('HSET', P .. 'rq', asked, me) end
  end
  out[#out + 1] = answer
end
return finish(table.concat(out, ' '))
