-- A record is a message, or a run: messages of one sender that go the same way and differ in number and body only. Head, names, the
-- lengths of the bodies where there are several, bodies. A run is one entry of a stream, and has as many numbers as messages.
local HEAD, HEAD_SIZE = '>BBHdddBBBBBI4', 37
local GIVEN, EXPIRES, WAITED, NUMBERED = 4, 8, 16, 32

local function has(flags, bit) return math.floor(flags / bit) % 2 == 1 end

local function head(data, pos)
  local flags, p, n, seconds, sent, first, lr, ls, li, lt, lc, lb, at = struct.unpack(HEAD, data, pos)
  local names = at - pos + 1
  local id = names + lr + ls
  local lengths = id + li + lt + lc
  local bodies = n > 1 and lengths + 4 * n or lengths
  local size = bodies + lb - 1
  -- Made at once, since a table that grows is made again; most records are alone, and not copied.
  return {flags = flags, p = p, n = n, seconds = seconds, sent = sent, first = first, lr = lr, ls = ls, li = li, lt = lt, lc = lc, lb = lb,
    names = names, id = id, lengths = lengths, bodies = bodies, size = size, seq = 0,
    expires = flags >= EXPIRES and has(flags, EXPIRES) and seconds * 1000 or nil,
    record = pos == 1 and size >= #data and data or string.sub(data, pos, pos + size - 1)}
end

local function message_id(h)
  local name = string.sub(h.record, h.id, h.id + h.li - 1)
  return has(h.flags, NUMBERED) and name .. text(h.first) or name
end

local function recipient(h) return string.sub(h.record, h.names, h.names + h.lr - 1) end
local function sender(h) return string.sub(h.record, h.names + h.lr, h.id - 1) end
local function correlation(h) return string.sub(h.record, h.lengths - h.lc, h.lengths - 1) end

-- What is in a stream, unless somebody else put it there.
local function sound(entry)
  local fields = entry[2]
  if not fields or fields[1] ~= 'd' or #fields[2] < HEAD_SIZE then return nil end
  local seq, n = string.match(entry[1], '^(%d+)%-(%d+)$')
  local h = head(fields[2], 1)
  if h.size ~= #fields[2] or h.n < 1 or tonumber(n) ~= (h.n > 1 and h.n or 0) then return nil end
  h.seq = tonumber(seq)
  return h
end

local function entry(seq, n) return text(seq) .. (n > 1 and '-' .. n or '-0') end

local function lengths(h)
  if h.n == 1 then return {h.lb} end
  return {struct.unpack('>' .. string.rep('I4', h.n), h.record, h.lengths)}
end

local function with(h, n, first, size)
  return struct.pack(HEAD, h.flags, h.p, n, h.seconds, h.sent, first, h.lr, h.ls, h.li, h.lt, h.lc, size)
    .. string.sub(h.record, h.names, h.lengths - 1)
end

-- The first messages of a run.
local function first_of(h, number)
  if number == h.n then return h.record end
  local all, size = lengths(h), 0
  for at = 1, number do size = size + all[at] end
  local some = number > 1 and string.sub(h.record, h.lengths, h.lengths + 4 * number - 1) or ''
  return with(h, number, h.first, size) .. some .. string.sub(h.record, h.bodies, h.bodies + size - 1)
end

-- Each message of a run; fewer where what it says of their lengths is not so.
local function singles(h)
  if h.n == 1 then return {h.record} end
  local all, at, found = lengths(h), h.bodies, {}
  for one = 1, h.n do
    if at + all[one] > h.size + 1 then break end
    found[one] = with(h, 1, h.first + one - 1, all[one]) .. string.sub(h.record, at, at + all[one] - 1)
    at = at + all[one]
  end
  return found
end
