local function by_run(b)
  local all, by = call('HGETALL', key('j', b)), {}
  for at = 1, #all, 2 do
    local p, seq, n, first = string.match(all[at + 1], '^(%d):(%d+):(%d+):(%d+)$')
    local name = string.sub(all[at], 1, #all[at] - #first)
    by[name] = by[name] or {}
    by[name][#by[name] + 1] = {p = tonumber(p), seq = tonumber(seq), n = tonumber(n), first = tonumber(first)}
  end
  return by
end

-- The runs that hold some of these are opened, since the others of them stay.
local function open_for(b, ids, places)
  local by
  for at, id in ipairs(ids) do
    if not places[at] then
      if not by then by = by_run(b) end
      local name, number = string.match(id, '^(.-)(%d+)$')
      -- The longest digits at the end may begin with some of the name.
      while name and #number > 0 do
        for _, run in ipairs(by[name] or {}) do
          local behind = tonumber(number) - run.first
          if behind >= 0 and behind < run.n and text(tonumber(number)) == number then
            if not run.opened then
              run.opened = true
              open_held(b, run.p, run.seq, run.n)
            end
            places[at] = call('HGET', key('i', b), id)
          end
        end
        name, number = name .. string.sub(number, 1, 1), string.sub(number, 2)
      end
    end
  end
end

-- What was not acknowledged in time may be until it is delivered again; it is not after its last attempt, nor when it has expired by then.
local function too_late(b, p, seq)
  local score = tonumber(call('ZSCORE', held(b, p), member(seq, 1)) or 0)
  if score == 0 or score > now then return false end
  local h, tries = stored(b, p, seq)
  local expired = h and h.expires and h.expires <= now
  if not h or not expired and tries < b.a then return false end
  settle(b, p, seq, h)
  if expired then count('expired', 1) end
  bury(b.name, expired and EXPIRED or ATTEMPTS, tries, h.record)
  return true
end

local function acknowledge_each(b, ids, is_due)
  local known = 0
  for first = 1, #ids, 500 do
    local some = {}
    for at = first, math.min(first + 499, #ids) do some[#some + 1] = ids[at] end
    local places, by, twice = call('HMGET', key('i', b), unpack(some)), {[0] = {}, [1] = {}, [2] = {}}, {}
    if b.u > 0 and call('EXISTS', key('j', b)) == 1 then open_for(b, some, places) end
    call('HDEL', key('i', b), unpack(some))
    for _, at in ipairs(places) do
      if at and not twice[at] then
        twice[at] = true
        local p, seq = string.match(at, '^(%d):(%d+)$')
        p, seq = tonumber(p), tonumber(seq)
        local seqs = by[p]
        if not is_due or not too_late(b, p, seq) then seqs[#seqs + 1] = seq end
      end
    end
    for p = 0, 2 do
      local members, entries, opened = {}, {}, {}
      for _, seq in ipairs(by[p]) do
        members[#members + 1] = member(seq, 1)
        entries[#entries + 1] = entry(seq, 1)
        opened[#opened + 1] = place(p, seq)
      end
      if #members > 0 then
        local gone = call('ZREM', held(b, p), unpack(members))
        known = known + gone
        b.u = b.u - gone
        pcall('XACK', stream(b, p), 'g', unpack(entries))
        pcall('XDEL', stream(b, p), unpack(entries))
        call('HDEL', key('o', b), unpack(opened))
      end
    end
  end
  return known
end

local function acknowledge_run(b, first_id, n)
  local p, seq, size = string.match(call('HGET', key('j', b), first_id) or '', '^(%d):(%d+):(%d+)')
  p, seq = tonumber(p), tonumber(seq)
  if tonumber(size) ~= n or call('ZREM', held(b, p), member(seq, n)) == 0 then return false end
  call('HDEL', key('j', b), first_id)
  pcall('XACK', stream(b, p), 'g', entry(seq, n))
  pcall('XDEL', stream(b, p), entry(seq, n))
  b.u = b.u - n
  return true
end

-- Each a number of messages, the number of the first and a name; or 0, 0 and an id.
local function acknowledge(b, packed)
  local known, ids, pos = 0, {}, 1
  local is_due = b.u > 0 and b.d > 0 and b.d <= now
  while pos <= #packed do
    local n, first, name
    n, first, name, pos = struct.unpack('>HdBc0', packed, pos)
    if n == 0 then ids[#ids + 1] = name
    elseif not (is_due and b.a == 1) and acknowledge_run(b, name .. text(first), n) then known = known + n
    else
      for number = first, first + n - 1 do ids[#ids + 1] = name .. text(number) end
    end
  end
  if #ids > 0 then known = known + acknowledge_each(b, ids, is_due) end
  if b.u == 0 then b.d = 0 end
  if known > 0 then room(b) end
  count('acknowledged', known)
  return known
end
