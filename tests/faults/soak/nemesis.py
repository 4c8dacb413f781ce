"""The nemesis: carries out a plan of faults while the work goes on.

- A fault strikes when its segment of the work is done to the share that the plan says. A clock comes in only where the
  work stands still, so that no fault is waited for in vain; such strikes are counted.
- As a fault strikes the next segment of the work is let go: the work goes on during outages.
- Two faults may overlap, never on the same victim; a fault that finds its victim in trouble waits for the end of that.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from tests.faults.soak.lanes import Lane, Workload
from tests.faults.soak.plan import Fault, Kind
from tests.faults.soak.scale import Scale
from tests.faults.soak.stage import ROOMY_BYTES, Stage, is_settled
from tests.services.child import Child
from tests.services.waiting import wait_until

#: Outages that are open at the same time, at most.
_AT_ONCE = 2

#: Seconds without a fault's moment coming after which it strikes anyway.
_PATIENCE_S = 15.0

_LOOK_S = 0.01

#: Seconds after which a process that had not ended is looked at again, and those it has to end.
_AGAIN_S = 0.1
_END_S = 60.0

#: Seconds that a calm lasts at most.
_CALM_S = 10.0

#: Room that Redis is left with in the faults that make it short of memory.
_FILLING_BYTES = 1 << 20


#: Ends an outage; says whether it is over: a process may need longer to end than the outage was meant to last.
Heal: TypeAlias = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class _Outage:
    """A fault that has struck and is not over."""

    fault: Fault
    victims: tuple[str, ...]
    ends_at: float
    heal: Heal


class Nemesis:
    """Strikes, and heals what it struck."""

    def __init__(self, scale: Scale, stage: Stage, workload: Workload) -> None:
        self._scale = scale
        self._stage = stage
        self._workload = workload
        self._open: list[_Outage] = []
        self._pause = threading.Event()
        self.carried_out: Counter[Kind] = Counter()
        self.by_the_clock = 0
        #: Ends that were not as they should be: what, and which exit.
        self.odd_ends: list[str] = []
        self.last: Fault | None = None

    def carry_out(self, plan: tuple[Fault, ...], say: Callable[[str], None]) -> None:
        """Let the work go, segment by segment, and strike in each but the last."""
        self._workload.grant(0)
        for fault in plan:
            self._await_moment(fault)
            if fault.after_calm:
                self.calm_down()
            self._make_way(fault)
            say(f"{self._workload.done():>9,} tasks  {fault}")
            self.last = fault
            self._strike(fault)
            self.carried_out[fault.kind] += 1
            self._workload.grant(fault.number + 1)
        self.calm_down()

    def calm_down(self) -> None:
        """End every outage, and let the consumers catch up for a while."""
        self.heal_all()
        deadline = time.monotonic() + _CALM_S
        with self._stage.broker() as client:
            while not is_settled(client) and time.monotonic() < deadline:
                self._pause.wait(_AGAIN_S)

    def heal_all(self) -> None:
        """End every outage."""
        while self._open:
            self._heal(self._open[0])
            self._pause.wait(_LOOK_S)

    # --- the moment ---

    def _await_moment(self, fault: Fault) -> None:
        total = self._scale.units * 10 * len(self._workload.lanes)
        moment = int((fault.number + fault.at) * total / (self._scale.faults + 1))
        deadline = time.monotonic() + _PATIENCE_S
        while self._workload.done() < moment:
            if time.monotonic() > deadline:
                self.by_the_clock += 1
                return
            self._heal_what_is_due()
            self._pause.wait(_LOOK_S)

    def _make_way(self, fault: Fault) -> None:
        victims = set(self._victims(fault))
        while len(self._open) >= _AT_ONCE or any(victims & set(outage.victims) for outage in self._open):
            self._pause.wait(_LOOK_S)
            self._heal_what_is_due()

    def _heal_what_is_due(self) -> None:
        for outage in [outage for outage in self._open if outage.ends_at <= time.monotonic()]:
            self._heal(outage)

    def _heal(self, outage: _Outage) -> None:
        self._open.remove(outage)
        if not outage.heal():
            self._open.append(replace(outage, ends_at=time.monotonic() + _AGAIN_S))

    # --- the strikes ---

    def _victims(self, fault: Fault) -> tuple[str, ...]:
        victim = fault.kind.value.partition(" ")[0]
        if fault.kind is Kind.STORE_AWAY_REDIS_FILLING:
            return "mongodb", "redis"
        if victim == "consumer":
            pauses = fault.kind is Kind.CONSUMER_PAUSE
            return (fault.choose(list(self._stage.consumers) if pauses else self._stage.mortal()),)
        if victim == "producer":
            return (fault.choose(self._producers(fault.kind)),)
        return (victim,)

    def _producers(self, kind: Kind) -> list[str]:
        if kind is Kind.PRODUCER_PAUSE:
            return list(self._workload.lanes)
        if kind is Kind.PRODUCER_LEAVE:
            return self._workload.replaceable()
        return self._workload.mortal() if kind is Kind.PRODUCER_KILL else self._workload.terminable()

    def _strike(self, fault: Fault) -> None:
        victims = self._victims(fault)
        heal = _STRIKES[fault.kind](self, fault, victims[0])
        if heal is not None:
            self._open.append(_Outage(fault, victims, time.monotonic() + fault.seconds, heal))

    def _kill_producer(self, _fault: Fault, name: str) -> None:
        self._workload.lanes[name].kill()

    def _terminate_producer(self, _fault: Fault, name: str) -> None:
        self._workload.lanes[name].terminate()

    def _end_producer(self, _fault: Fault, name: str) -> None:
        self._workload.lanes[name].leave()

    def _pause_producer(self, _fault: Fault, name: str) -> Heal:
        lane = self._workload.lanes[name]
        lane.send(signal.SIGSTOP)
        return lambda: _resume(lane)

    def _kill_consumer(self, _fault: Fault, name: str) -> Heal:
        self._stage.consumers[name].kill()
        return lambda: self._start_consumer(name)

    def _terminate_consumer(self, _fault: Fault, name: str) -> Heal:
        consumer = self._stage.consumers[name]
        wait_until(consumer.has_begun, _END_S, f"the start of {name}")
        consumer.send(signal.SIGTERM)
        deadline = time.monotonic() + _END_S

        def heal() -> bool:
            if consumer.is_running and time.monotonic() < deadline:
                return False
            code = consumer.kill()
            if code != 0:
                self.odd_ends.append(f"{name}: exit {code} after SIGTERM\n{consumer.tail()}")
            return self._start_consumer(name)

        return heal

    def _start_consumer(self, name: str) -> bool:
        self._stage.consumers[name].start()
        return True

    def _pause_consumer(self, _fault: Fault, name: str) -> Heal:
        consumer = self._stage.consumers[name]
        consumer.send(signal.SIGSTOP)
        return lambda: _resume(consumer)

    def _kill_redis(self, fault: Fault, _name: str) -> Heal:
        self._stage.redis.kill()
        return lambda: self._start_redis(fault)

    def _stop_redis(self, fault: Fault, _name: str) -> Heal:
        self._stage.redis.stop()
        return lambda: self._start_redis(fault)

    def _tear_redis(self, fault: Fault, _name: str) -> Heal:
        self._stage.redis.kill()
        self._stage.torn(fault.lost_bytes)
        return lambda: self._start_redis(fault)

    def _wipe_redis(self, fault: Fault, _name: str) -> Heal:
        self._stage.redis.kill()
        self._stage.wiped()
        return lambda: self._start_redis(fault)

    def _start_redis(self, fault: Fault) -> bool:
        self._stage.redis.start()
        with self._stage.broker() as client:
            return bool(client.config_set("appendfsync", fault.policy))

    def _pause_redis(self, _fault: Fault, _name: str) -> Heal:
        self._stage.redis.pause()
        return lambda: _resume(self._stage.redis.child)

    def _cut_redis(self, _fault: Fault, _name: str) -> None:
        with self._stage.broker() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def _fill_redis(self, _fault: Fault, _name: str) -> Heal:
        with self._stage.broker() as client:
            client.config_set("maxmemory", max(1, int(client.info("memory")["used_memory"]) - 1))
        return self._empty_redis

    def _empty_redis(self) -> bool:
        with self._stage.broker() as client:
            return bool(client.config_set("maxmemory", ROOMY_BYTES))

    def _start_mongo(self) -> bool:
        self._stage.mongo.start()
        return True

    def _kill_mongo(self, _fault: Fault, _name: str) -> Heal:
        self._stage.mongo.kill()
        return self._start_mongo

    def _stop_mongo(self, _fault: Fault, _name: str) -> Heal:
        self._stage.mongo.stop()
        return self._start_mongo

    def _pause_mongo(self, _fault: Fault, _name: str) -> Heal:
        self._stage.mongo.pause()
        return lambda: _resume(self._stage.mongo.child)

    def _take_store_away(self, _fault: Fault, _name: str) -> Heal:
        """MongoDB away for long, and Redis with so little room that consumers must spool what they read."""
        self._stage.mongo.kill()
        with self._stage.broker() as client:
            client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + _FILLING_BYTES)

        return lambda: self._start_mongo() and self._empty_redis()


def _resume(process: Child | Lane) -> bool:
    process.send(signal.SIGCONT)
    return True


#: How each kind strikes; None where it is over at once.
_STRIKES: Mapping[Kind, Callable[[Nemesis, Fault, str], Heal | None]] = {
    Kind.PRODUCER_KILL: Nemesis._kill_producer,
    Kind.PRODUCER_TERM: Nemesis._terminate_producer,
    Kind.PRODUCER_LEAVE: Nemesis._end_producer,
    Kind.PRODUCER_PAUSE: Nemesis._pause_producer,
    Kind.CONSUMER_KILL: Nemesis._kill_consumer,
    Kind.CONSUMER_TERM: Nemesis._terminate_consumer,
    Kind.CONSUMER_PAUSE: Nemesis._pause_consumer,
    Kind.REDIS_KILL: Nemesis._kill_redis,
    Kind.REDIS_STOP: Nemesis._stop_redis,
    Kind.REDIS_PAUSE: Nemesis._pause_redis,
    Kind.REDIS_CUT: Nemesis._cut_redis,
    Kind.REDIS_FULL: Nemesis._fill_redis,
    Kind.REDIS_TORN: Nemesis._tear_redis,
    Kind.REDIS_WIPED: Nemesis._wipe_redis,
    Kind.MONGO_KILL: Nemesis._kill_mongo,
    Kind.MONGO_STOP: Nemesis._stop_mongo,
    Kind.MONGO_PAUSE: Nemesis._pause_mongo,
    Kind.STORE_AWAY_REDIS_FILLING: Nemesis._take_store_away,
}
