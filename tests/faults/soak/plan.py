"""The plan of faults: what happens to whom, when, and for how long; a function of the seed and nothing else.

- The moment of a fault is a point in the progress of the work, not of the clock: on a slow machine a seed means the
  same.
- Every kind comes up once before any is repeated.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tests.faults.soak.scale import Scale


class Kind(str, Enum):
    """What can happen: the victim, and what is done to it."""

    PRODUCER_KILL = "producer killed"
    PRODUCER_TERM = "producer terminated"
    PRODUCER_LEAVE = "producer ended in order"
    PRODUCER_PAUSE = "producer paused"
    CONSUMER_KILL = "consumer killed"
    CONSUMER_TERM = "consumer terminated"
    CONSUMER_PAUSE = "consumer paused"
    REDIS_KILL = "redis killed"
    REDIS_STOP = "redis restarted"
    REDIS_PAUSE = "redis paused"
    REDIS_CUT = "redis connections cut"
    REDIS_FULL = "redis full"
    REDIS_TORN = "redis lost its last writes"
    REDIS_WIPED = "redis lost everything"
    MONGO_KILL = "mongodb killed"
    MONGO_STOP = "mongodb restarted"
    MONGO_PAUSE = "mongodb paused"
    STORE_AWAY_REDIS_FILLING = "mongodb away while redis fills"


#: How often a kind is drawn, relative to the others.
_WEIGHTS = {
    Kind.PRODUCER_KILL: 5,
    Kind.PRODUCER_TERM: 2,
    Kind.PRODUCER_LEAVE: 2,
    Kind.PRODUCER_PAUSE: 2,
    Kind.CONSUMER_KILL: 5,
    Kind.CONSUMER_TERM: 3,
    Kind.CONSUMER_PAUSE: 3,
    Kind.REDIS_KILL: 3,
    Kind.REDIS_STOP: 2,
    Kind.REDIS_PAUSE: 3,
    Kind.REDIS_CUT: 3,
    Kind.REDIS_FULL: 2,
    Kind.REDIS_TORN: 3,
    Kind.REDIS_WIPED: 1,
    Kind.MONGO_KILL: 3,
    Kind.MONGO_STOP: 2,
    Kind.MONGO_PAUSE: 3,
    Kind.STORE_AWAY_REDIS_FILLING: 2,
}

#: After these something is missing, unless producers keep on disk what the store does not have yet.
_LOSING = frozenset({Kind.PRODUCER_KILL, Kind.REDIS_TORN, Kind.REDIS_WIPED})

#: These are over as they strike.
_AT_ONCE = frozenset({Kind.PRODUCER_KILL, Kind.PRODUCER_TERM, Kind.PRODUCER_LEAVE, Kind.REDIS_CUT})

#: What Redis may be told about its append-only file; the draw follows at each of its returns.
_POLICIES = ("always", "everysec", "no")

#: Seconds that a short outage lasts; a long one is a multiple of the claim time.
_SHORT_S = (0.1, 0.8)
_LONG_CLAIMS = (1.2, 2.0)
_LONG_SHARE = 0.4

_CALM_SHARE = 0.2

#: Bytes that a machine's crash takes off the end of Redis' file at most.
_TORN_BYTES = 400_000


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `at` is the share of its segment's work that is done when it strikes."""

    number: int
    kind: Kind
    at: float
    seconds: float
    #: Drawn once, so that a victim is chosen among as many as there are.
    victim: float
    #: Redis' fsync policy after it, where it restarts Redis.
    policy: str
    lost_bytes: int
    #: Whether all is well for a moment before it: an endless outage would never let a spool be emptied.
    after_calm: bool

    def choose(self, candidates: Sequence[str]) -> str:
        """The victim among these."""
        return candidates[int(self.victim * len(candidates))]

    def __str__(self) -> str:
        length = "" if self.kind in _AT_ONCE else f" for {self.seconds:.2f} s"
        return f"#{self.number} {self.kind.value}{length}"


def make_plan(seed: int, scale: Scale) -> tuple[Fault, ...]:
    """The faults of a seed, in the order in which they strike."""
    draw = random.Random(seed)
    kinds = [kind for kind in Kind if scale.survives_kills or kind not in _LOSING]
    drawn = draw.choices(kinds, [_WEIGHTS[kind] for kind in kinds], k=max(0, scale.faults - len(kinds)))
    order = [*draw.sample(kinds, min(len(kinds), scale.faults)), *drawn]
    draw.shuffle(order)
    return tuple(_fault(draw, number, kind, scale) for number, kind in enumerate(order))


def _fault(draw: random.Random, number: int, kind: Kind, scale: Scale) -> Fault:
    is_long = draw.random() < _LONG_SHARE
    if is_long or kind is Kind.STORE_AWAY_REDIS_FILLING:
        seconds = scale.claim_after_s * draw.uniform(*_LONG_CLAIMS)
    else:
        seconds = draw.uniform(*_SHORT_S)
    return Fault(
        number=number,
        kind=kind,
        at=draw.uniform(0.05, 0.6),
        seconds=seconds,
        victim=draw.random(),
        policy=draw.choice(_POLICIES) if scale.survives_kills else "always",
        lost_bytes=draw.randrange(1, _TORN_BYTES),
        after_calm=draw.random() < _CALM_SHARE,
    )
