-- ARGV[6 ..]: steps. T name most | A name ids | G name records (packed) | P. Answers a length and an answer for each.
local out = {}
local function answer(said)
  out[#out + 1] = struct.pack('>I4', #said)
  out[#out + 1] = said
end

local function read(b, p, asked)
  if b.manual then return pcall('XREADGROUP', 'GROUP', 'g', me, 'COUNT', asked, 'STREAMS', stream(b, p), '>') end
  return pcall('XREADGROUP', 'GROUP', 'g', me, 'COUNT', asked, 'NOACK', 'STREAMS', stream(b, p), '>')
end

local function hold(b, p, taken)
  if taken.number == 0 then return end
  if #taken.scores > 0 then call('ZADD', held(b, p), unpack(taken.scores)) end
  if #taken.ids > 0 then call('HSET', key('i', b), unpack(taken.ids)) end
  if #taken.runs > 0 then call('HSET', key('j', b), unpack(taken.runs)) end
  call('ZADD', P .. 'vis', 'LT', text(now + b.t), b.name)
  b.u = b.u + taken.number
  if b.d == 0 or now + b.t < b.d then b.d = now + b.t end
end

-- The first messages of a run that is longer than what was asked for: the others are the next, before all else of their priority.
local function take_part(b, p, h, most, give)
  open_waiting(b, p, h)
  if most == 0 then return end
  if b.manual then return due(b, p, most, give) end
  local ranks = call('ZRANGEBYSCORE', key('k', b), text(p * RANK + h.seq), text(p * RANK + h.seq + most - 1))
  for _, one in ipairs(ranks) do call('ZREM', key('k', b), one) end
  b.z = b.z - #ranks
  count('delivered', #ranks)
  count('acknowledged', #ranks)
  if #ranks > 0 then give(p, 1, h.seq, first_of(h, #ranks)) end
  room(b)
end

local function fresh(b, p, left, give)
  local manual = b.manual
  local s = stream(b, p)
  local again = true
  while b.n[p] > 0 and left > 0 do
    -- Where there are runs nobody knows how many messages the next entry is.
    local found = read(b, p, b.m[p] >= b.n[p] and math.min(left, 500) or 1)
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
      local taken, gone, long, last = manual and {number = 0, scores = {}, ids = {}, runs = {}} or {number = 0}, {}, {}, nil
      local deadline = manual and text(now + b.t)
      for _, one in ipairs(found[1][2]) do
        local h = sound(one)
        last = one[1]
        if not ours(b, h) then
          gone[#gone + 1] = last
          count('corrupt', 1)
        elseif h.n > left - taken.number then
          long[#long + 1] = h
        else
          b.n[p] = math.max(0, b.n[p] - h.n)
          b.m[p] = math.max(0, b.m[p] - 1)
          if h.expires and h.expires <= now then
            gone[#gone + 1] = last
            call('ZREM', P .. 'exp', mark(b, p, h.seq))
            count('expired', 1)
            bury(b.name, EXPIRED, 0, h.record)
          else
            taken.number = taken.number + h.n
            give(p, 1, h.seq, h.record)
            if manual then
              taken.scores[#taken.scores + 1] = deadline
              taken.scores[#taken.scores + 1] = member(h.seq, h.n)
              local names = h.n > 1 and taken.runs or taken.ids
              names[#names + 1] = message_id(h)
              names[#names + 1] = place(p, h.seq) .. (h.n > 1 and ':' .. h.n .. ':' .. text(h.first) or '')
            else
              if h.expires then call('ZREM', P .. 'exp', mark(b, p, h.seq)) end
              gone[#gone + 1] = last
            end
          end
        end
      end
      b.dirty = true
      count('delivered', taken.number)
      if #gone > 0 then
        if manual then call('XACK', s, 'g', unpack(gone)) end
        if manual or b.u > 0 or #gone == 1 or #long > 0 then call('XDEL', s, unpack(gone))
        else
          local seq, n = string.match(last, '^(%d+)%-(%d+)$')
          call('XTRIM', s, 'MINID', '=', seq .. '-' .. text(tonumber(n) + 1))
        end
        room(b)
      end
      if manual then hold(b, p, taken) else count('acknowledged', taken.number) end
      left = left - taken.number
      for _, h in ipairs(long) do
        local most = math.min(left, h.n)
        take_part(b, p, h, most, give)
        left = left - most
      end
    end
  end
  return left
end

local function given_back(b, p, left, give)
  for _, one in ipairs(call('ZRANGEBYSCORE', key('k', b), text(p * RANK), text((p + 1) * RANK - 1), 'LIMIT', 0, left)) do
    call('ZREM', key('k', b), one)
    b.z = b.z - 1
    local seq, record = string.match(one, '^(%d+):(.*)$')
    local h = head(record, 1)
    seq = tonumber(seq)
    if h.expires then call('ZREM', P .. 'exp', mark(b, p, seq)) end
    if h.expires and h.expires <= now then
      count('expired', 1)
      bury(b.name, EXPIRED, 0, record)
    else
      left = left - 1
      count('delivered', 1)
      if b.manual then
        spread(b, p, seq, {record}, text(now + b.t))
        hold(b, p, {number = 1, scores = {}, ids = {message_id(h), place(p, seq)}, runs = {}})
      else
        count('acknowledged', 1)
      end
      give(p, 1, seq, record)
    end
    room(b)
  end
  return left
end

-- Answers K and what was taken, or E when that was the last there is, or K and when something is due again.
local function take(b, most)
  local left, slot, size = most, #out + 1, 1
  out[slot], out[slot + 1] = '', ''
  local function give(p, attempt, seq, record)
    out[#out + 1] = struct.pack('>BHdI4', p, attempt, seq, #record)
    out[#out + 1] = record
    size = size + 15 + #record
  end
  -- A clock that was set back would keep these for longer than their time.
  if b.u > 0 and b.d > now + b.t then
    for p = 0, 2 do
      for _, one in ipairs(call('ZRANGEBYSCORE', held(b, p), '(' .. text(now + b.t), '+inf', 'LIMIT', 0, 1000)) do
        call('ZADD', held(b, p), text(now + b.t), one)
      end
    end
    next_due(b)
  end
  local is_due = b.u > 0 and b.d <= now
  for p = 0, 2 do
    if is_due and left > 0 then left = due(b, p, left, give) end
    if b.z > 0 and left > 0 then left = given_back(b, p, left, give) end
    if left > 0 then left = fresh(b, p, left, give) end
  end
  if is_due then next_due(b) end
  if left == most then
    b.w = with_me(b.w)
    b.dirty = true
    -- In milliseconds from now.
    out[#out + 1] = struct.pack('>d', b.u > 0 and math.max(0, b.d - now) or -1)
    size = size + 8
  elseif total(b) == 0 then
    -- Who took the last one is told of the next, and need not ask before.
    b.w = with_me(b.w)
  end
  out[slot] = struct.pack('>I4', size)
  out[slot + 1] = left < most and total(b) == 0 and 'E' or 'K'
end

local function give_back(b, packed)
  local pos = 1
  while pos <= #packed do
    local p, attempt, seq, length, at = struct.unpack('>BHdI4', packed, pos)
    local h = head(packed, at)
    pos = at + length
    local records, back = singles(h), 0
    if b.manual then
      -- Of the run that was handed out these may be a part.
      if h.n > 1 or call('ZSCORE', held(b, p), member(seq, 1)) == false then
        for _, runs in pairs(by_run(b)) do
          for _, run in ipairs(runs) do
            if run.p == p and run.seq <= seq and seq < run.seq + run.n then open_held(b, p, run.seq, run.n) end
          end
        end
      end
      for one = 1, #records do
        if call('ZSCORE', held(b, p), member(seq + one - 1, 1)) then
          call('ZADD', held(b, p), 0, member(seq + one - 1, 1))
          call('HDEL', key('i', b), message_id(head(records[one], 1)))
          back = back + 1
        end
      end
      b.d = 1
    else
      spread(b, p, seq, records, nil)
      if h.expires and h.expires < 9e15 then call('ZADD', P .. 'exp', text(math.max(0, h.expires)), mark(b, p, seq)) end
      back = #records
      b.z = b.z + back
      count('acknowledged', -back)
    end
    count(attempt > 1 and 'redelivered' or 'delivered', -back)
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
    if not b then answer('U')
    elseif kind == 'G' then
      give_back(b, ARGV[at + 2])
      answer('K')
    elseif others(b) then answer('O')
    elseif kind == 'A' then answer(text(acknowledge(b, ARGV[at + 2])))
    else take(b, tonumber(ARGV[at + 2])) end
    at = at + 3
  end
end
return finish(table.concat(out))
