-- ARGV[6]: `dead` with the first and the last one wanted, or `stats`. Nothing is kept for a repetition: it changes nothing.
if ARGV[6] == 'dead' then
  local out = {}
  for _, one in ipairs(call('LRANGE', P .. 'dead', ARGV[7], ARGV[8])) do
    out[#out + 1] = struct.pack('>I4', #one)
    out[#out + 1] = one
  end
  return table.concat(out)
end
local found, queued = call('HGETALL', P .. 'stats'), {}
for _, one in ipairs(call('SMEMBERS', P .. 'agents')) do
  local b = box(one)
  if b then queued[#queued + 1] = struct.pack('>Bc0I4', #one, one, total(b)) end
end
return table.concat(found, ' ') .. '\n' .. table.concat(queued)
