"""G1 under duress: what the program does stays what it does, whatever it hands us, however it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from provd.common.record import Kind
from tests.services.ports import free_port
from tests.streams import Script, Streams


def test_children_forked_while_the_sender_imports_its_client_can_import_too(script: Script) -> None:
    """A fork in the middle of an import would leave its locks to the child, held for ever."""
    ended = script.run("""
        import os, signal, time, provd

        provd.workflow("w").start()
        children = []
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            child = os.fork()
            if child == 0:
                signal.alarm(40)  # all of them import at once
                import redis
                os._exit(0)
            children.append(child)
        print({os.waitpid(child, 0)[1] for child in children})
    """)

    assert (ended.stdout, ended.stderr) == ("{0}\n", "")


def test_a_captured_signal_handler_may_interrupt_capture_anywhere(script: Script, streams: Streams) -> None:
    ended = script.run(
        """
        import faulthandler, signal, time, provd

        faulthandler.dump_traceback_later(40, exit=True)
        ticks = 0

        @provd.task
        def tick(text):
            pass

        def handler(*_):
            global ticks
            ticks += 1
            tick("t")

        signal.signal(signal.SIGALRM, handler)
        calls = 0
        with provd.workflow("w"):
            signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
            while ticks < 2000:
                for _ in range(300):
                    tick("x" * 300)
                calls += 300
                provd.flush(0)
            signal.setitimer(signal.ITIMER_REAL, 0)
        print(calls + ticks)
        """,
        env={"PROVD_BUFFER_BYTES": str(1 << 20), "PROVD_FLUSH_INTERVAL_S": "0.01"},
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    goodbye = streams.records(Kind.PRODUCER)[-1]
    assert goodbye["tasks_ended"] == int(ended.stdout)


def test_a_time_limit_that_strikes_inside_capture_reaches_the_program(script: Script) -> None:
    ended = script.run("""
        import signal, provd

        def limit(*_):
            raise TimeoutError("time is up")

        @provd.task
        def work(rows):
            pass

        signal.signal(signal.SIGALRM, limit)
        rows = [[float(n)] * 100 for n in range(1000)]
        seen = 0
        with provd.workflow("w"):
            for _ in range(10):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.003)
                    while True:
                        work(rows)
                except TimeoutError:
                    seen += 1
        print(seen)
    """)

    assert (ended.stdout, ended.stderr) == ("10\n", "")


@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_a_time_limit_that_strikes_inside_capture_loses_no_call_that_had_returned(
    script: Script, streams: Streams, durability: str
) -> None:
    """G2, G7: what interrupts a cut, or the way to the spool, in the program's thread leaves the rest to the next."""
    ended = script.run(
        """
        import signal, provd

        class Limit(Exception):
            pass

        armed = False

        def limit(*_):
            if armed:
                raise Limit

        @provd.task
        def work(n):
            pass

        signal.signal(signal.SIGALRM, limit)
        returned, n, struck = [], 0, 0
        with provd.workflow("w"):
            signal.setitimer(signal.ITIMER_REAL, 0.0013, 0.0013)
            while True:
                try:
                    armed = True
                    while n < 20_000 or (struck <= 20 and n < 400_000):
                        n += 1
                        work(n)
                        returned.append(n)
                    armed = False
                    break
                except Limit:
                    armed = False
                    struck += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
        print(struck > 20, len(returned), sum(returned))
        """,
        env={"PROVD_BUFFER_BYTES": str(1 << 20), "PROVD_DURABILITY": durability},
    )

    assert ended.stderr == ""
    struck, count, total = ended.stdout.split()
    tasks = streams.records(Kind.TASK)
    finished = {task["used"]["n"]: task["task_id"] for task in tasks if task["status"] == "FINISHED"}
    assert struck == "True"
    ids = {task["task_id"] for task in tasks}
    assert len(ids) == len({task["used"]["n"] for task in tasks})  # none twice
    # A call that was struck may be recorded, too, as what it came to.
    assert len(finished) >= int(count)
    assert sum(finished) >= int(total)


def test_a_program_that_waits_for_its_signals_gets_them(script: Script) -> None:
    """A thread of ours that did not block them would let SIGTERM end the program."""
    ended = script.run("""
        import os, signal, provd

        with provd.workflow("w"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            os.kill(os.getpid(), signal.SIGTERM)
            print(signal.sigwait({signal.SIGTERM}).name)
    """)

    assert (ended.returncode, ended.stdout) == (0, "SIGTERM\n")


def test_the_sender_blocks_every_signal_but_those_of_a_crash(script: Script) -> None:
    """A program that has SIGPIPE at its default must not be ended by our write to a Redis that is gone."""
    ended = script.run("""
        import signal, threading, provd

        provd.workflow("w").start()
        (sender,) = (thread for thread in threading.enumerate() if thread.name == "provd-sender")
        blocked = 0
        for line in open(f"/proc/self/task/{sender.native_id}/status"):
            if line.startswith("SigBlk:"):
                blocked = int(line.split()[1], 16)
        names = ("SIGPIPE", "SIGTERM", "SIGINT", "SIGCHLD", "SIGSEGV")
        print([name for name in names if blocked >> (getattr(signal, name) - 1) & 1])
        print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    """)

    assert ended.stdout == "['SIGPIPE', 'SIGTERM', 'SIGINT', 'SIGCHLD']\nset()\n"


def test_what_ends_in_a_finalizer_when_the_interpreter_goes_down_does_not_hang_or_complain(
    script: Script,
) -> None:
    ended = script.run("""
        import provd

        @provd.task
        def numbers():
            yield 1
            yield 2

        class Holder:
            def __init__(self):
                self.task = provd.Task("by hand")

            def __del__(self):
                self.task.end()

        with provd.workflow("w"):
            suspended = numbers()
            next(suspended)
            holder = Holder()
        print("done")
    """)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def test_coroutines_and_tasks_may_end_in_another_context_than_they_began_in(
    script: Script, streams: Streams
) -> None:
    ended = script.run("""
        import contextvars, types, provd

        @types.coroutine
        def pause():
            yield

        @provd.task
        async def step():
            await pause()

        with provd.workflow("w"):
            coroutine = step()
            contextvars.copy_context().run(coroutine.send, None)
            coroutine.close()
            task = provd.Task("by hand")
            contextvars.copy_context().run(task.__enter__)
            task.__exit__(None, None, None)
        print("done")
    """)

    assert (ended.stdout, ended.stderr) == ("done\n", "")
    assert {task["activity_id"] for task in streams.tasks()} == {"step", "by hand"}


def test_values_with_odd_types_do_not_raise_into_the_call(script: Script, streams: Streams) -> None:
    ended = script.run("""
        import provd

        class Unhashable(type):
            def __eq__(self, other):
                return self is other

        class Secretive(type):
            def __getattribute__(self, name):
                raise OSError(name)

        class One(metaclass=Unhashable): pass
        class Two(metaclass=Secretive): pass

        class Lazy:
            @property
            def __class__(self):
                print("loaded")
                return dict

        class Counted(list):
            def __iter__(self):
                print("iterated")
                return super().__iter__()

        @provd.task
        def use(value):
            return 7

        with provd.workflow("w"):
            for value in (One(), [One()], {"k": One}, Two(), [Two()], Lazy(), Counted([1])):
                print(use(value))
    """)

    assert (ended.stdout, ended.stderr) == ("7\n" * 7, "")
    assert len(streams.tasks("use")) == 7


def test_names_that_are_no_text_are_recorded_as_text(script: Script, streams: Streams) -> None:
    ended = script.run("""
        import enum, pathlib, provd

        class Kind(enum.Enum):
            FAST = "fast"

        @provd.task(subtype=Kind.FAST, agent_id=7)
        def step():
            pass

        with provd.workflow(pathlib.Path("a/b")):
            step()
            provd.Task("t", subtype=Kind.FAST, group_id=3).end()
            print(provd.flush(30))
    """)

    assert (ended.stdout, ended.stderr) == ("True\n", "")
    assert [task["subtype"] for task in streams.tasks()] == ["fast", "fast"]
    assert streams.records(Kind.WORKFLOW)[-1]["name"] == "a/b"


def test_what_is_no_function_stays_as_it_was(script: Script) -> None:
    ended = script.run("""
        import provd

        @provd.task
        class Model:
            @provd.task
            @property
            def size(self):
                return 3

        with provd.workflow("w"):
            print(isinstance(Model(), Model), Model().size)
    """)

    assert ended.stdout == "True 3\n"
    assert ended.stderr.count("\n") == 1


def test_an_argument_of_a_callable_that_hides_its_parameters_is_not_taken_away(script: Script) -> None:
    ended = script.run("""
        import functools, provd

        class Runner:
            def __call__(self, **options):
                return options

        with provd.workflow("w"):
            print(provd.task(Runner())(workflow_id="theirs"))
            print(provd.task(functools.partial(dict, a=1))(campaign_id="theirs"))
    """)

    assert ended.stdout == "{'workflow_id': 'theirs'}\n{'a': 1, 'campaign_id': 'theirs'}\n"


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"when: 2026-02-30", b"[" * 2000], ids=["binary", "date", "deep"]
)
def test_a_settings_file_that_cannot_be_read_warns_once_and_the_science_runs(
    script: Script, content: bytes
) -> None:
    (script.folder / "provd.yaml").write_bytes(content)

    ended = script.run("import provd\nwith provd.workflow('w'): print('science')")

    assert (ended.returncode, ended.stdout) == (0, "science\n")
    assert ended.stderr.count("\n") == 1


def test_a_warning_that_nobody_can_print_troubles_nobody(script: Script) -> None:
    ended = script.run(
        """
        import sys, provd

        sys.stderr.close()
        with provd.workflow("w"):
            print("science")
        """,
        env={"PROVD_BUCKETS": "many"},
    )

    assert (ended.returncode, ended.stdout) == (0, "science\n")


def test_without_an_end_to_the_drain_the_program_ends_all_the_same(script: Script) -> None:
    ended = script.run(
        "import provd\nwith provd.workflow('w'): pass\nprint(provd.flush(1e300))",
        env={"PROVD_EXIT_DRAIN_S": "inf"},
    )

    assert (ended.returncode, ended.stdout) == (0, "True\n")
    assert ended.stderr.count("\n") == 1
    assert "PROVD_EXIT_DRAIN_S" in ended.stderr


def test_where_no_thread_can_be_started_messages_go_to_the_spool(script: Script, tmp_path: Path) -> None:
    ended = script.run(
        """
        import _thread, threading, provd

        def refuse(*_):
            raise RuntimeError("can't start new thread")

        threading._start_new_thread = refuse

        @provd.task
        def step():
            pass

        with provd.workflow("w"):
            step()
            print(provd.flush(30))
        """,
        env={"PROVD_SPOOL_DIR": str(tmp_path / "spool")},
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")
    assert list((tmp_path / "spool").rglob("*.jsonl"))


def test_an_option_in_the_url_that_the_client_does_not_take_is_a_broker_away(
    script: Script, tmp_path: Path
) -> None:
    ended = script.run(
        "import provd\nwith provd.workflow('w'): print(provd.flush(30))",
        env={
            "PROVD_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0?no_such_option=1",
            "PROVD_SPOOL_DIR": str(tmp_path / "spool"),
        },
    )

    assert (ended.returncode, ended.stdout) == (0, "True\n")
    assert "provd replay" in ended.stderr


def test_a_relative_spool_below_a_working_directory_that_is_gone_is_counted_as_dropped(
    script: Script,
) -> None:
    ended = script.run(
        """
        import os, tempfile, provd

        folder = tempfile.mkdtemp()
        os.chdir(folder)
        os.rmdir(folder)
        with provd.workflow("w"):
            print("science")
        """,
        env={"PROVD_BROKER_URL": "", "PROVD_SPOOL_DIR": "relative/spool"},
    )

    assert (ended.returncode, ended.stdout) == (0, "science\n")
    assert "dropped and counted" in ended.stderr


def test_a_finalizer_that_runs_when_the_modules_are_gone_may_call_what_is_captured(script: Script) -> None:
    ended = script.run("""
        import os, sys, provd

        class Late:
            def __init__(self, *calls):
                self.calls, self.write = calls, os.write

            def __del__(self):
                for call in self.calls:
                    self.write(1, str(call(3)).encode())

        def same(value):
            return value

        sys.kept = Late(provd.task(same), provd.task(light=True)(same))
        with provd.workflow("w"):
            pass
    """)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "33", "")
