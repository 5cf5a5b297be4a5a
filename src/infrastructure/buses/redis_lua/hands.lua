-- What is due again, those that nobody may have any more buried; `most` 0 only buries.
local function due(b, p, most, give)
  local left, scores, seqs = most, {}, {}
  -- Of a run nothing is buried before it was handed out a second time.
  if most > 0 or b.a == 1 then
    for _, one in ipairs(call('ZRANGEBYSCORE', held(b, p), '(0', text(now), 'LIMIT', 0, 1000)) do
      local seq, n = parsed(one)
      if n > 1 then open_held(b, p, seq, n) end
    end
  end
  local found = call('ZRANGEBYSCORE', held(b, p), '(0', text(now), 'WITHSCORES', 'LIMIT', 0, 1000)
  for at = 1, #found, 2 do
    local seq, n = parsed(found[at])
    if n == 1 then
      seqs[#seqs + 1] = seq
      scores[seq] = tonumber(found[at + 1])
    end
  end
  local back = most > 0 and call('ZRANGEBYSCORE', held(b, p), 0, 0, 'LIMIT', 0, math.min(most, 1000)) or {}
  for _, one in ipairs(back) do
    local seq = parsed(one)
    seqs[#seqs + 1] = seq
    scores[seq] = 0
  end
  table.sort(seqs)
  for _, seq in ipairs(seqs) do
    local again = scores[seq] > 0
    if left == 0 and not again then break end
    local h, tries = stored(b, p, seq)
    if not h then
      settle(b, p, seq, nil)
      count('lost', 1)
    elseif h.expires and h.expires <= now then
      settle(b, p, seq, h)
      count('expired', 1)
      bury(b.name, EXPIRED, again and tries or 0, h.record)
    elseif again and tries >= b.a then
      settle(b, p, seq, h)
      bury(b.name, ATTEMPTS, tries, h.record)
    elseif left > 0 then
      left = left - 1
      local attempt = again and tries + 1 or tries
      if b.manual then
        if call('HEXISTS', key('o', b), place(p, seq)) == 1 then
          call('HSET', key('o', b), place(p, seq), struct.pack('>H', attempt) .. h.record)
        else
          pcall('XCLAIM', stream(b, p), 'g', me, 0, entry(seq, 1), 'RETRYCOUNT', attempt, 'JUSTID')
        end
        call('ZADD', held(b, p), text(now + b.t), member(seq, 1))
        call('HSET', key('i', b), message_id(h), place(p, seq))
        call('ZADD', P .. 'vis', 'LT', text(now + b.t), b.name)
      else
        settle(b, p, seq, h)
        count('acknowledged', 1)
      end
      count(attempt > 1 and 'redelivered' or 'delivered', 1)
      give(p, attempt, seq, h.record)
    end
  end
  -- There may be more, all of which come before what was never handed out.
  if left > 0 and (#found == 2000 or #back == math.min(most, 1000)) then return due(b, p, left, give) end
  return left
end

local function next_due(b)
  local first
  for p = 0, 2 do
    local one = call('ZRANGE', held(b, p), 0, 0, 'WITHSCORES')
    if one[2] and (not first or tonumber(one[2]) < first) then first = tonumber(one[2]) end
  end
  b.d = first or 0
  b.dirty = true
end
