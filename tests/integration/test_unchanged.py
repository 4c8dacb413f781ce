"""The traced program's behaviour is unchanged: the same programs, with provd and with a `provd` that does nothing.

Output, exit status and what stands last on stderr are compared. The lines of a traceback are not: a wrapper is one more
frame.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.streams import Script

#: What a program would be without us.
NOTHING = """
import contextlib

def task(fn=None, **options):
    return (lambda function: function) if fn is None else fn

@contextlib.contextmanager
def workflow(*args, **options):
    yield

def wrap(fn):
    return fn

def flush(timeout=None):
    return True

def loop(items, **options):
    return items
"""

PROGRAMS = {
    "returns": """
        @provd.task
        def give(x): return x
        for value in (None, 0, "", [], {}, (1, 2), NotImplemented, Ellipsis, float("nan"), object):
            same = give(value) is value
            print(same, type(value).__name__)
    """,
    "exceptions": """
        class Odd(BaseException): pass
        @provd.task
        def fail(error): raise error
        for error in (ValueError("a", 1), KeyError("k"), Odd("b"), StopIteration(3), OSError(2, "no"), GeneratorExit()):
            try: fail(error)
            except BaseException as caught: print(caught is error, repr(caught), caught.__context__, caught.__cause__)
        try:
            try: fail(ValueError("inner"))
            except ValueError as inner: raise RuntimeError("outer") from inner
        except RuntimeError as outer: print(repr(outer), repr(outer.__cause__))
    """,
    "uncaught": """
        @provd.task
        def fail(): raise LookupError("nobody caught me")
        print("before", flush=True)
        fail()
    """,
    "exit-zero": "print('out', flush=True); sys.exit(0)",
    "exit-three": "print('out', flush=True); sys.exit(3)",
    "exit-text": "sys.exit('said on the way out')",
    "exit-in-task": """
        @provd.task
        def leave(): sys.exit(5)
        leave()
    """,
    "os-exit": """
        import os
        @provd.task
        def leave():
            sys.stdout.flush()
            os._exit(7)
        print("out")
        leave()
    """,
    "interrupt": """
        @provd.task
        def stop(): raise KeyboardInterrupt
        stop()
    """,
    "killed": """
        import os, signal
        @provd.task
        def stop(): os.kill(os.getpid(), signal.SIGTERM)
        stop()
    """,
    "signal-handlers": """
        import os, signal
        print(signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
        @provd.task
        def poke(): os.kill(os.getpid(), signal.SIGUSR1)
        poke()
    """,
    "generators": """
        @provd.task
        def numbers(n):
            try:
                for i in range(n):
                    got = yield i
                    if got: print("got", got)
            finally:
                print("closed")
            return "end"
        print(list(numbers(3)))
        g = numbers(5); print(next(g), g.send("x")); g.close()
        g = numbers(5); next(g)
        try: g.throw(KeyError("k"))
        except KeyError as error: print(repr(error))
        def outer(): print((yield from numbers(2)))
        print(list(outer()))
        g = numbers(1); next(g); del g
    """,
    "async": """
        import asyncio
        @provd.task
        async def work(n):
            await asyncio.sleep(0)
            if n == 2: raise ValueError(n)
            return n
        @provd.task
        async def stream(n):
            for i in range(n):
                yield i
        async def main():
            print(await asyncio.gather(*(work(n) for n in range(4)), return_exceptions=True))
            waiting = asyncio.create_task(asyncio.wait_for(work_forever(), 0.01))
            print(await asyncio.gather(waiting, return_exceptions=True))
            print([i async for i in stream(3)])
        @provd.task
        async def work_forever(): await asyncio.Event().wait()
        asyncio.run(main())
    """,
    "threads": """
        import threading
        from concurrent.futures import ThreadPoolExecutor
        @provd.task
        def square(x): return x * x
        with ThreadPoolExecutor(4) as pool: print(list(pool.map(provd.wrap(square), range(10))))
        @provd.task
        def broken(): raise ValueError("in a thread")
        hook = []
        threading.excepthook = lambda details: hook.append(repr(details.exc_value))
        thread = threading.Thread(target=broken); thread.start(); thread.join()
        print(hook)
    """,
    "fork": """
        import os
        @provd.task
        def work(x): return x
        work(1)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            print("child", work(2), flush=True)
            os._exit(4)
        print("parent", os.waitpid(pid, 0)[1] >> 8, work(3))
    """,
    "multiprocessing": """
        import multiprocessing
        @provd.task
        def work(x): return x + 1
        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(2) as pool: print(pool.map(work, range(4)))
            process = multiprocessing.get_context("fork").Process(target=sys.exit, args=(9,))
            process.start(); process.join(); print(process.exitcode)
    """,
    "arguments": """
        class Loud:
            def __getattr__(self, name): print("asked for", name); raise AttributeError(name)
            def __repr__(self): print("repr"); return "Loud"
            def __eq__(self, other): print("eq"); return True
            def __hash__(self): print("hash"); return 1
            def __len__(self): print("len"); return 3
            def __iter__(self): print("iter"); return iter(())
            def __bool__(self): print("bool"); return True
        def spend():
            print("started"); yield 1
        @provd.task
        def take(*things, **named): return None
        take(Loud(), [Loud()], {"k": Loud()}, spend(), map(print, [1]), x=Loud())
        lent = [1]
        lent.append(lent)
        take(lent, {"self": lent})
        print(len(lent))
    """,
    "recursion": """
        @provd.task
        def down(n): return 0 if n == 0 else 1 + down(n - 1)
        print(down(200))
    """,
    "standard-output": """
        @provd.task
        def say(): print("said"); sys.stderr.write("warned\\n")
        say()
        sys.stdout.close()
    """,
    "daemon-thread-at-exit": """
        import threading
        @provd.task
        def tick(): return 1
        def forever():
            while True: tick()
        threading.Thread(target=forever, daemon=True).start()
        print("leaving")
    """,
    "atexit": """
        import atexit
        @provd.task
        def late(): return "late"
        atexit.register(lambda: print(late()))
    """,
    "loops": """
        for i in provd.loop(range(5), name="epoch"):
            if i == 1: continue
            if i == 3: break
            print(i)
        def find():
            for i in provd.loop(iter([1, 2, 3])):
                if i == 2: return i
        print(find())
        try:
            for i in provd.loop([1, 2]): raise ValueError(i)
        except ValueError as error: print(repr(error))
    """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_does_what_it_would_have_done(script: Script, tmp_path: Path, name: str) -> None:
    # Given a program inside a workflow
    source = "import sys\nimport provd\n\nwith provd.workflow('w'):\n" + textwrap.indent(
        textwrap.dedent(PROGRAMS[name]), "    "
    )
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "provd.py").write_text(NOTHING)

    # When it runs without provd, and with it
    without = script.run(source, env={"PYTHONPATH": str(plain)})
    with_it = script.run(source)

    # Then nobody can tell
    assert with_it.stdout == without.stdout
    assert with_it.returncode == without.returncode
    assert with_it.stderr.splitlines()[-1:] == without.stderr.splitlines()[-1:]
