"""Imports that begin late, and forks.

- A fork waits for them: a child born in the middle of an import would inherit locks that nobody releases, and hang at
  its own next import of any of those modules.
- It waits for a few seconds at most: whoever forks may hold what the import needs.
"""

from __future__ import annotations

import os
import threading

#: Seconds that a fork waits for an import; it takes longer only where it waits for a lock of the forking thread.
_IMPORT_WAIT_S = 5.0

#: Held while modules of provd's own are imported late, in whatever thread needs them first.
loading = threading.RLock()

#: Held while the sender's thread imports what talks to Redis. Apart from the other, so that nobody else waits for that.
loading_client = threading.RLock()

#: The threads that fork, and what they hold for it.
_forking: list[tuple[int, threading.RLock]] = []

_guarded = False


def guard_forks() -> None:
    """Have every fork from here on wait before all else. Called before the import of `redis` can begin.

    Registered last, ours is the first to be called before a fork: whoever is called earlier may take a lock that the
    import needs, as `logging` does.
    """
    global _guarded
    if not _guarded:
        _guarded = True
        # What `redis` imports that has something done before and after a fork. Imported by the sender's thread, at the
        # moment of a fork, only the second half of it would be done.
        import logging  # noqa: F401

        _register()


def _before_fork() -> None:
    thread = threading.get_ident()
    held = (lock for lock in (loading_client, loading) if lock.acquire(timeout=_IMPORT_WAIT_S))
    _forking.extend((thread, lock) for lock in held)


def _after_fork() -> None:
    mine = [(thread, lock) for thread, lock in _forking if thread == threading.get_ident()]
    for each in mine:
        _forking.remove(each)
        each[1].release()


def _after_fork_in_child() -> None:
    global loading, loading_client
    loading, loading_client = threading.RLock(), threading.RLock()
    _forking.clear()


def _register() -> None:
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


_register()
