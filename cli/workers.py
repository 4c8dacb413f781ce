"""`provd consume --workers N`: N consumers on one host, each a process of its own, because Python uses one core each.

- They share the work through the consumer group, like consumers on N hosts: no leader, nothing divided up.
- A signal to the parent reaches all of them; its exit status is the worst of theirs.
- URLs go to them by environment, where no list of processes shows a password.
- One that dies is told about and not replaced: the others take over what it had in hand.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

from provd.cli.stopping import stopped_by_signals


def run_workers(
    count: int,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    say: Callable[[str], None],
    metrics_port: int | None = None,
) -> int:
    """Run `provd consume` with these arguments `count` times; the worst exit status. Metrics take successive ports."""
    workers = [_start(arguments, _environment(environment, metrics_port, number)) for number in range(count)]
    readers = [
        threading.Thread(target=_relay, args=(worker, number, say), name=f"provd-worker-{number}")
        for number, worker in enumerate(workers)
    ]
    for reader in readers:
        reader.start()
    with stopped_by_signals(lambda: _stop(workers)):
        statuses = [_status(worker, number, say) for number, worker in enumerate(workers)]
    for reader in readers:
        reader.join()
    return max(statuses)


def _start(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "provd", "consume", *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Ctrl-C in a terminal would reach them twice, and the second time means at once.
        start_new_session=True,
    )


def _environment(environment: Mapping[str, str], metrics_port: int | None, number: int) -> dict[str, str]:
    port = {} if metrics_port is None else {"PROVD_METRICS_PORT": str(metrics_port + number)}
    return {**environment, **port}


def _relay(worker: subprocess.Popen[str], number: int, say: Callable[[str], None]) -> None:
    for line in worker.stderr or ():
        say(f"[{number}] {line.rstrip()}")


def _stop(workers: Sequence[subprocess.Popen[str]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)


def _status(worker: subprocess.Popen[str], number: int, say: Callable[[str], None]) -> int:
    status = worker.wait()
    if status < 0:
        say(f"[{number}] ended by signal {-status}; the others take over what it had")
        return 1
    return status
