"""What must happen in Redis in one step.

Each script touches the keys of one workflow only, which share a slot. All are plain `EVAL`: inside `MULTI` an
acknowledgement is refused when memory is full, and apart from the deletion a crash between the two would leak.

- A script that has written may go on writing when memory is full. So what frees comes first, and notes then.
- A key of ours that somebody has given another type holds nobody up: it reads as empty, and goes when it is written to.
"""

from __future__ import annotations

#: Text of ranges ("1-500,701-900") in Lua: parts in any order become sorted spans that never touch, so equal sets have
#: equal texts and a text is as long as its set has gaps. Numbers are written by `%.0f`: a plain one loses digits.
_RANGES = """
local function spans(text)
  local found = {}
  for first, last in string.gmatch(text or '', '(%d+)%-(%d+)') do
    found[#found + 1] = {tonumber(first), tonumber(last)}
  end
  return found
end
local function written(list)
  local parts = {}
  for i, span in ipairs(list) do parts[i] = string.format('%.0f-%.0f', span[1], span[2]) end
  return table.concat(parts, ',')
end
local function union(text, more)
  local all = spans(text)
  for _, span in ipairs(spans(more)) do all[#all + 1] = span end
  table.sort(all, function(a, b) return a[1] < b[1] end)
  local merged = {}
  for _, span in ipairs(all) do
    local top = merged[#merged]
    if top and span[1] <= top[2] + 1 then
      if span[2] > top[2] then top[2] = span[2] end
    else
      merged[#merged + 1] = span
    end
  end
  return written(merged)
end
local function minus(text, less)
  local left = spans(text)
  for _, hole in ipairs(spans(less)) do
    local kept = {}
    for _, span in ipairs(left) do
      if hole[2] < span[1] or hole[1] > span[2] then
        kept[#kept + 1] = span
      else
        if span[1] < hole[1] then kept[#kept + 1] = {span[1], hole[1] - 1} end
        if span[2] > hole[2] then kept[#kept + 1] = {hole[2] + 1, span[2]} end
      end
    end
    left = kept
  end
  return written(left)
end
"""

#: Receipts are those of one store, which is named beside them: what another store has confirmed is not in this one.
_VOUCH = """
local function vouch(receipts, store)
  if redis.pcall('HGET', receipts, ':store') ~= store then
    redis.call('DEL', receipts)
    redis.call('HSET', receipts, ':store', store)
  end
end
"""

#: KEYS stream, stored; ARGV group, count, that many ids, then, where there are receipts, the store's identity,
#: producers and texts of ranges. Acknowledges and deletes frames, and adds what the store holds of producers that
#: wait for it to their receipts; returns how many were pending. A workflow that has been retired meanwhile gets no
#: receipts: nobody would delete them.
ACKNOWLEDGE = (
    _RANGES
    + _VOUCH
    + """
local ids = tonumber(ARGV[2])
local acknowledged = redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 3, 2 + ids))
redis.call('XDEL', KEYS[1], unpack(ARGV, 3, 2 + ids))
if #ARGV > 2 + ids and redis.call('EXISTS', KEYS[1]) == 1 then
  vouch(KEYS[2], ARGV[3 + ids])
  for i = 4 + ids, #ARGV, 2 do
    redis.call('HSET', KEYS[2], ARGV[i], union(redis.call('HGET', KEYS[2], ARGV[i]), ARGV[i + 1]))
  end
end
return acknowledged
"""
)

#: KEYS stream, spooled; ARGV group, id, producer or nothing, text of ranges. Acknowledges and deletes one frame, and
#: adds its numbers to what is noted of the producer.
SPOOLED = (
    _RANGES
    + """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[2])
if ARGV[3] ~= '' then
  local noted = redis.pcall('HGET', KEYS[2], ARGV[3])
  if type(noted) == 'table' then
    redis.call('DEL', KEYS[2])
    noted = ''
  end
  redis.call('HSET', KEYS[2], ARGV[3], union(noted, ARGV[4]))
end
return 1
"""
)

#: KEYS spooled, stored; ARGV the store's identity, then producers, each with the text of the ranges that have left the spool, and of those among
#: them that the store holds now. Takes the note back, and gives the receipts. Without a note the workflow has been
#: retired, and nothing is written.
UNSPOOLED = (
    _RANGES
    + _VOUCH
    + """
for i = 2, #ARGV, 3 do
  local noted = redis.pcall('HGET', KEYS[1], ARGV[i])
  if type(noted) == 'string' then
    local left = minus(noted, ARGV[i + 1])
    redis.call('HDEL', KEYS[1], ARGV[i])
    if left ~= '' then redis.call('HSET', KEYS[1], ARGV[i], left) end
    if ARGV[i + 2] ~= '' then
      vouch(KEYS[2], ARGV[1])
      redis.call('HSET', KEYS[2], ARGV[i], union(redis.call('HGET', KEYS[2], ARGV[i]), ARGV[i + 2]))
    end
  end
end
return 1
"""
)

#: KEYS streams of one bucket. How many entries each has; -1 for what is no stream.
LENGTHS = """
local found = {}
for i, key in ipairs(KEYS) do
  local length = redis.pcall('XLEN', key)
  found[i] = type(length) == 'number' and length or -1
end
return found
"""

#: KEYS beats and spooled of workflows of one bucket, in turn. Of those that have either: place, beats, spooled.
SIGNS = """
local function read(key)
  local flat = redis.pcall('HGETALL', key)
  return flat.err and {} or flat
end
local found = {}
for i = 1, #KEYS, 2 do
  local beats, spooled = read(KEYS[i]), read(KEYS[i + 1])
  if #beats + #spooled > 0 then
    found[#found + 1] = (i - 1) / 2
    found[#found + 1] = beats
    found[#found + 1] = spooled
  end
end
return found
"""

#: KEYS streams of one bucket; ARGV group, consumer. The places of those where others have frames pending.
OF_OTHERS = """
local found = {}
for i, key in ipairs(KEYS) do
  local summary = redis.pcall('XPENDING', key, ARGV[1])
  local owners = not summary.err and summary[1] > 0 and summary[4] or {}
  if #owners > 1 or (owners[1] and owners[1][1] ~= ARGV[2]) then found[#found + 1] = i - 1 end
end
return found
"""

#: KEYS stream; ARGV group, consumer, idle milliseconds, count, schema version. Takes over frames that other consumers
#: have not touched for that long, and those that were put aside for a schema this version reads; returns how many.
CLAIM = """
local summary = redis.call('XPENDING', KEYS[1], ARGV[1])
if summary[1] == 0 then return 0 end
local taken = 0
for _, owner in ipairs(summary[4]) do
  local name, idle = owner[1], ARGV[3]
  local schema = tonumber(string.match(name, '^newer:(%d+)$'))
  if schema then idle = schema <= tonumber(ARGV[5]) and 0 or nil end
  if idle and name ~= ARGV[2] then
    local ids = {}
    local found = redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', idle, '-', '+', ARGV[4], name)
    for i, entry in ipairs(found) do ids[i] = entry[1] end
    if #ids > 0 then
      ids[#ids + 1] = 'JUSTID'
      taken = taken + #redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], idle, unpack(ids))
    end
  end
end
return taken
"""

#: KEYS stream; ARGV group, consumer, idle milliseconds or nothing, ids. Says of frames that are still this consumer's
#: that they have been idle for no time, or for the time given. Those that another has taken over stay with it.
TOUCH = """
local own = {}
for i = 4, #ARGV do
  local found = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
  if #found > 0 then own[#own + 1] = ARGV[i] end
end
if #own == 0 then return 0 end
local count = #own
own[#own + 1] = 'JUSTID'
if ARGV[3] ~= '' then
  own[#own + 1] = 'IDLE'
  own[#own + 1] = ARGV[3]
end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(own))
return count
"""

#: KEYS stream; ARGV group, consumer, first id, last id, count. Ids of this consumer's pending frames, each followed
#: by how often it has been delivered.
DELIVERIES = """
local flat = {}
for _, entry in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[4], ARGV[5], ARGV[2])) do
  flat[#flat + 1] = entry[1]
  flat[#flat + 1] = entry[4]
end
return flat
"""

#: KEYS stream, suspects; ARGV group, consumer, id. Counts one more suspicion against a frame that is this consumer's;
#: returns how many there were before, or -1 when the frame is not its any more. The claim comes first because it may
#: be written when memory is full, and what comes after a write may be written too.
SUSPECT = """
local found = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if found.err or #found == 0 then return -1 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'JUSTID')
local count = redis.pcall('HINCRBY', KEYS[2], ARGV[3], 1)
if type(count) == 'table' then
  redis.call('DEL', KEYS[2])
  count = redis.call('HINCRBY', KEYS[2], ARGV[3], 1)
end
return count - 1
"""

#: KEYS suspects; ARGV ids. Takes one suspicion back from each.
CLEAR = """
if type(redis.pcall('HLEN', KEYS[1])) == 'table' then return 1 end
for _, id in ipairs(ARGV) do
  local count = tonumber(redis.call('HGET', KEYS[1], id) or '0')
  redis.call('HDEL', KEYS[1], id)
  if count > 1 then redis.call('HSET', KEYS[1], id, count - 1) end
end
return 1
"""

#: KEYS stream; ARGV group, consumer, idle milliseconds. Removes consumers that have nothing pending and have not been
#: seen for that long, but never the one given; returns how many.
FORGET = """
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then return 0 end
local gone = 0
for _, facts in ipairs(consumers) do
  local about = {}
  for i = 1, #facts, 2 do about[facts[i]] = facts[i + 1] end
  if about.pending == 0 and about.idle > tonumber(ARGV[3]) and about.name ~= ARGV[2] then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about.name)
    gone = gone + 1
  end
end
return gone
"""

#: KEYS registry, stream; ARGV group. After NOGROUP: makes the group where the stream exists (returns 1), and
#: forgets the stream where it does not (returns 0). A script that has written may go on when memory is full: hence
#: the removal of nothing.
REPAIR = """
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('SREM', KEYS[1], KEYS[2])
  return 0
end
redis.call('SREM', KEYS[1], '')
local made = redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[1], '0')
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
return 1
"""

#: KEYS registry, stream, beats, spooled, then the workflow's other keys; ARGV group, and of how many producers a
#: consumer's spool may hold numbers. Removes a workflow's keys if nothing is left in the stream and no consumer has
#: spooled what was left meanwhile; returns 1 when it did.
RETIRE = """
if redis.call('XLEN', KEYS[2]) > 0 then return 0 end
local spooled = redis.pcall('HLEN', KEYS[4])
if type(spooled) == 'number' and spooled > tonumber(ARGV[2]) then return 0 end
local pending = redis.pcall('XPENDING', KEYS[2], ARGV[1])
if not pending.err and pending[1] > 0 then return 0 end
redis.call('DEL', unpack(KEYS, 2))
redis.call('SREM', KEYS[1], KEYS[2])
return 1
"""
