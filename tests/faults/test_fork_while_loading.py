"""A fork at the moment another thread loads what a first producer needs."""

from __future__ import annotations

from tests.streams import Script

#: The import of `{module}` takes a moment, in which the main thread forks; the child captures something then.
FORK = """
    import os
    import signal
    import sys
    import threading
    import provd

    @provd.task
    def work():
        pass

    class Slow:
        at_it, forked = threading.Event(), threading.Event()

        @classmethod
        def find_spec(cls, name, path=None, target=None):
            if name == "{module}":
                cls.at_it.set()
                cls.forked.wait(1.0)
            return None

    sys.meta_path.insert(0, Slow)

    def capture():
        with provd.workflow("in a thread"):
            work()

    thread = threading.Thread(target=capture)
    thread.start()
    assert Slow.at_it.wait(10.0)
    child = os.fork()
    Slow.forked.set()
    if child == 0:
        signal.alarm(20)
        with provd.workflow("in the child"):
            work()
            provd.flush(10.0)
        os._exit(0)
    thread.join()
    print(os.waitpid(child, 0)[1])
"""


def test_a_child_that_is_born_while_another_thread_loads_the_first_producer_captures(script: Script) -> None:
    """G1: a child in the middle of an import would wait for ever for a lock of a thread that it has not."""
    done = script.run(FORK.format(module="provd.common.settings"))

    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_a_child_that_is_born_while_the_sender_loads_its_client_captures(script: Script) -> None:
    """G1"""
    done = script.run(FORK.format(module="provd.common.broker_nodes"))

    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
