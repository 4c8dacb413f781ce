"""What must happen in Redis in one step.

Each script touches the keys of one workflow only, which share a slot. All are plain `EVAL`: inside `MULTI` an
acknowledgement is refused when memory is full, and apart from the deletion a crash between the two would leak.

- A script that has written may go on writing when memory is full. So `SPOOLED` frees first and notes then.
"""

from __future__ import annotations

#: KEYS stream; ARGV group, ids. Returns how many were pending.
ACKNOWLEDGE = """
local acknowledged = redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 2))
redis.call('XDEL', KEYS[1], unpack(ARGV, 2))
return acknowledged
"""

#: KEYS stream, spooled; ARGV group, id, producer, first, last. Acknowledges and deletes one frame, and adds its
#: numbers to the producer's text of ranges ("1-500,701-900"), lengthening the last one where they touch.
SPOOLED = """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[2])
local ranges = redis.call('HGET', KEYS[2], ARGV[3])
local first = ARGV[4]
if ranges then
  local head, start, last = string.match(ranges, '^(.-)(%d+)-(%d+)$')
  if last and tonumber(last) + 1 == tonumber(first) then
    ranges = head
    first = start
  else
    ranges = ranges .. ','
  end
else
  ranges = ''
end
redis.call('HSET', KEYS[2], ARGV[3], ranges .. first .. '-' .. ARGV[5])
return 1
"""

#: KEYS registry, stream; ARGV group. After NOGROUP: makes the group where the stream exists (returns 1), and
#: forgets the stream where it does not (returns 0).
REPAIR = """
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('SREM', KEYS[1], KEYS[2])
  return 0
end
local made = redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[1], '0')
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
return 1
"""

#: KEYS registry, stream, then the workflow's other keys; ARGV group. Removes a workflow's keys if nothing is left in
#: the stream; returns 1 when it did.
RETIRE = """
if redis.call('XLEN', KEYS[2]) > 0 then return 0 end
local pending = redis.pcall('XPENDING', KEYS[2], ARGV[1])
if not pending.err and pending[1] > 0 then return 0 end
redis.call('DEL', unpack(KEYS, 2))
redis.call('SREM', KEYS[1], KEYS[2])
return 1
"""
