"""Files that several processes write, changed by one at a time; from the standard library alone."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where two runs at once are not kept apart
    fcntl = None


@contextlib.contextmanager
def locked(path: str | Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; it stays there, empty.

    The lock ends with the process that holds it, whatever ends that.

    Parameters
    ----------
    path : in a folder that exists
    waiting : called once if another process holds the lock
    """
    with open(path, "w") as lock:
        if fcntl:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting:
                    waiting()
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield
