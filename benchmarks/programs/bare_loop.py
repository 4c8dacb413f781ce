"""The least that a consumer can be: XREADGROUP, unpack, insert, XACK.

Arguments: Redis, MongoDB, the database, the stream, how many tasks, entries in one reading. Each entry is a list of
whole records as they are to be stored, be it of one. It says `ready`, begins when it is given a line, and prints the seconds until
all is stored and acknowledged.
"""

import json
import sys
import time
from typing import Any

import msgpack
import pymongo
import redis

redis_url, mongo_url, database, stream = sys.argv[1:5]
count, entries_at_once = map(int, sys.argv[5:7])
client = redis.Redis.from_url(redis_url)
tasks: Any = pymongo.MongoClient(mongo_url, w="majority", journal=True)[database]["tasks"]
tasks.database.command("ping")
client.xgroup_create(stream, "bare", id="0")
print("ready", flush=True)
sys.stdin.readline()
started, before, done = time.perf_counter(), time.process_time(), 0
while done < count:
    reply: Any = client.xreadgroup("bare", "one", {stream: ">"}, count=entries_at_once, block=1000)
    ((_, entries),) = reply
    records: list[Any] = [record for _, fields in entries for record in msgpack.unpackb(fields[b"b"])]
    tasks.insert_many(records, ordered=False)
    client.xack(stream, "bare", *(entry_id for entry_id, _ in entries))
    done += len(records)
seconds, cpu = time.perf_counter() - started, time.process_time() - before
print(json.dumps({"tasks": done, "seconds": seconds, "cpu": cpu}), flush=True)
