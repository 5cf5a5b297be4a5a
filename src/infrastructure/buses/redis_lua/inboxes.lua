-- What inboxes hold. `v:NAME:P` names a single by its number and a run by number and size, each number with its zeros, so that those of
-- one score are in the order of their numbers.
local function mark(b, p, seq) return struct.pack('>Bc0', #b.name, b.name) .. p .. ':' .. text(seq) end
local function member(seq, n) return string.format('%016.0f', seq) .. (n > 1 and ':' .. n or '') end
local function parsed(one)
  local seq, n = string.match(one, '^(%d+):?(%d*)$')
  return tonumber(seq), tonumber(n) or 1
end
local function place(p, seq) return p .. ':' .. text(seq) end

local function in_stream(b, p, seq, n)
  local found = pcall('XRANGE', stream(b, p), entry(seq, n), entry(seq, n))
  if found.err or #found == 0 then return nil end
  return sound(found[1])
end

-- One that is unacknowledged, and how often it was handed out.
local function stored(b, p, seq)
  local one = call('HGET', key('o', b), place(p, seq))
  if one then return head(one, 3), (struct.unpack('>H', one)) end
  local h = in_stream(b, p, seq, 1)
  if not h then return nil end
  local pending = pcall('XPENDING', stream(b, p), 'g', entry(seq, 1), entry(seq, 1), 1)
  return h, not pending.err and pending[1] and pending[1][4] or 1
end

-- What is unacknowledged leaves the inbox.
local function settle(b, p, seq, h)
  pcall('XACK', stream(b, p), 'g', entry(seq, 1))
  pcall('XDEL', stream(b, p), entry(seq, 1))
  call('HDEL', key('o', b), place(p, seq))
  if call('ZREM', held(b, p), member(seq, 1)) == 1 then b.u = b.u - 1 end
  if h then
    call('HDEL', key('i', b), message_id(h))
    if h.expires then call('ZREM', P .. 'exp', mark(b, p, seq)) end
  end
  room(b)
end

-- These leave their run, and so the stream: to be given back in `auto`, to be held in `manual` (score 0: for nobody yet).
local function spread(b, p, seq, records, score)
  for first = 1, #records, 100 do
    local fields, scores = {}, {}
    for at = first, math.min(first + 99, #records) do
      local number = seq + at - 1
      if score then
        fields[#fields + 1] = place(p, number)
        fields[#fields + 1] = struct.pack('>H', 1) .. records[at]
        scores[#scores + 1] = score
        scores[#scores + 1] = member(number, 1)
      else
        scores[#scores + 1] = text(p * RANK + number)
        scores[#scores + 1] = text(number) .. ':' .. records[at]
      end
    end
    if score then call('HSET', key('o', b), unpack(fields)) end
    call('ZADD', score and held(b, p) or key('k', b), unpack(scores))
  end
  b.dirty = true
end

-- A run that waits becomes single messages that wait.
local function open_waiting(b, p, h)
  local records = singles(h)
  pcall('XACK', stream(b, p), 'g', entry(h.seq, h.n))
  pcall('XDEL', stream(b, p), entry(h.seq, h.n))
  b.n[p] = math.max(0, b.n[p] - h.n)
  b.m[p] = math.max(0, b.m[p] - 1)
  if b.manual then
    spread(b, p, h.seq, records, '0')
    b.u = b.u + #records
    b.d = 1
  else
    spread(b, p, h.seq, records, nil)
    b.z = b.z + #records
  end
  count('corrupt', h.n - #records)
end

-- A run that is unacknowledged becomes single messages that are.
local function open_held(b, p, seq, n)
  local score = call('ZSCORE', held(b, p), member(seq, n))
  local h = in_stream(b, p, seq, n)
  call('ZREM', held(b, p), member(seq, n))
  pcall('XACK', stream(b, p), 'g', entry(seq, n))
  pcall('XDEL', stream(b, p), entry(seq, n))
  b.dirty = true
  if not h then
    b.u = b.u - n
    count('lost', n)
    room(b)
    return
  end
  call('HDEL', key('j', b), message_id(h))
  local records = singles(h)
  spread(b, p, seq, records, score)
  for at = 1, #records do call('HSET', key('i', b), message_id(head(records[at], 1)), place(p, seq + at - 1)) end
  b.u = b.u - n + #records
  count('corrupt', n - #records)
end

-- Whether this inbox gave that number: what is beyond the last one was written by somebody else.
local function ours(b, h) return h and h.seq <= b.q end

-- The last number that a stream has seen; nil when something else is in its place.
local function last_number(b, p)
  local about = pcall('XINFO', 'STREAM', stream(b, p))
  if about.err then return nil end
  for at = 1, #about, 2 do
    if about[at] == 'last-generated-id' then
      local seq, n = string.match(about[at + 1], '^(%d+)%-(%d+)$')
      return tonumber(seq) + math.min(math.max(tonumber(n) - 1, 0), 65535)
    end
  end
end

-- How many messages of a stream were not handed out yet, and in how many entries.
local function waiting(b, p)
  local messages, entries, from = 0, 0, '-'
  local groups = pcall('XINFO', 'GROUPS', stream(b, p))
  if not groups.err and groups[1] then
    local about = groups[1]
    for at = 1, #about, 2 do
      if about[at] == 'last-delivered-id' then from = '(' .. about[at + 1] end
    end
  end
  while true do
    local page = pcall('XRANGE', stream(b, p), from, '+', 'COUNT', 100)
    if page.err or #page == 0 then return messages, entries end
    for _, one in ipairs(page) do
      local h = sound(one)
      if ours(b, h) then
        messages = messages + h.n
        entries = entries + 1
      end
    end
    from = '(' .. page[#page][1]
  end
end

-- A group that is not there is made from the start of its stream: what the stream still has waits (again), what it has not is lost.
local function regroup(b, p)
  pcall('XGROUP', 'CREATE', stream(b, p), 'g', '0', 'MKSTREAM')
  -- As it is when the first is taken: nothing was handed out, and all is there.
  if b.u == 0 and pcall('XLEN', stream(b, p)) == b.m[p] then return end
  local gone = 0
  for _, one in ipairs(call('ZRANGE', held(b, p), 0, -1)) do
    local seq, n = parsed(one)
    if call('HEXISTS', key('o', b), place(p, seq)) == 0 then
      gone = gone + n
      call('ZREM', held(b, p), one)
    end
  end
  for _, key in ipairs({key('i', b), key('j', b)}) do
    local all = call('HGETALL', key)
    for at = 1, #all, 2 do
      local of, seq = string.match(all[at + 1], '^(%d):(%d+)')
      if tonumber(of) == p and not call('ZSCORE', held(b, p), member(tonumber(seq), 1)) then call('HDEL', key, all[at]) end
    end
  end
  local lost = b.n[p] + gone
  b.n[p], b.m[p] = waiting(b, p)
  lost = lost - b.n[p]
  if lost > 0 then count('lost', lost) end
  b.u = math.max(0, b.u - gone)
  room(b)
end

local function missing(b, p)
  count('lost', b.n[p])
  b.n[p], b.m[p] = 0, 0
  room(b)
end

-- What waits and has expired, of whichever inbox.
local function bury_expired()
  for _, member_of in ipairs(call('ZRANGEBYSCORE', P .. 'exp', '-inf', text(now), 'LIMIT', 0, 1000)) do
    local name, at = struct.unpack('>Bc0', member_of)
    local p, seq = string.match(string.sub(member_of, at), '^(%d):(%d+)$')
    p, seq = tonumber(p), tonumber(seq)
    local b, later = box(name), nil
    if b then
      local score = call('ZSCORE', held(b, p), member(seq, 1))
      if score and tonumber(score) > now then
        later = score
      else
        local h, tries = stored(b, p, seq)
        if h then
          if score then settle(b, p, seq, h)
          else
            call('XDEL', stream(b, p), entry(seq, 1))
            b.n[p] = math.max(0, b.n[p] - 1)
            b.m[p] = math.max(0, b.m[p] - 1)
            room(b)
          end
          count('expired', 1)
          bury(name, EXPIRED, score and tonumber(score) > 0 and tries or 0, h.record)
        elseif b.z > 0 then
          local rank = text(p * RANK + seq)
          for _, one in ipairs(call('ZRANGEBYSCORE', key('k', b), rank, rank)) do
            call('ZREM', key('k', b), one)
            b.z = b.z - 1
            room(b)
            count('expired', 1)
            bury(name, EXPIRED, 0, string.match(one, '^%d+:(.*)$'))
          end
        end
      end
    end
    if later then call('ZADD', P .. 'exp', later, member_of) else call('ZREM', P .. 'exp', member_of) end
  end
end

local function put(b, h, record, n)
  local s = stream(b, h.p)
  b.dirty = true
  b.q = b.q + 1
  local added = pcall('XADD', s, entry(b.q, n), 'd', record)
  if type(added) == 'table' and added.err then
    -- Somebody else wrote here, or the numbers were forgotten: go on behind the last there is.
    local last = last_number(b, h.p)
    if not last then return false end
    b.q = math.max(b.q - 1, last)
    b.n[h.p], b.m[h.p] = waiting(b, h.p)
    b.q = b.q + 1
    added = pcall('XADD', s, entry(b.q, n), 'd', record)
    if type(added) == 'table' and added.err then return false end
  end
  if h.expires and h.expires < 9e15 then call('ZADD', P .. 'exp', text(math.max(0, h.expires)), mark(b, h.p, b.q)) end
  b.q = b.q + n - 1
  b.n[h.p] = b.n[h.p] + n
  b.m[h.p] = b.m[h.p] + 1
  if b.w ~= '' then
    tell(b.w, 'w', b.name)
    b.w = ''
  end
  return true
end
