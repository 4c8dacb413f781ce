"""Threads and processes of every kind join the workflow; `wrap` carries the parent task into threads."""

import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import provd


@provd.task
def work(where):
    """Runs wherever it is put."""
    return where


@provd.task
def in_threads():
    """The parent of what its threads do."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(provd.wrap(work), ["thread"] * 4))


def main():
    """Start one of each."""
    with provd.workflow("processes"):
        in_threads()
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(work, ["pool"] * 4))
        for context in (multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")):
            process = context.Process(target=work, args=(context.get_start_method(),))
            process.start()
            process.join()
        code = "import provd\n@provd.task\ndef work(where): pass\nwork('subprocess')"
        subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    main()
