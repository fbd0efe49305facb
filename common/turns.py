"""Turns at a host's cores, for ranks that are more than these.

Left to the kernel, ranks take a core from each other every few milliseconds, and each finds the caches full of another
one's networks: five ranks on two cores do a fifth to a quarter less than two. A turn lasts for many updates.
"""

import contextlib
import fcntl
import tempfile
import time
from typing import IO, Any

TURN = 1.0  # seconds; long, as the first milliseconds of a turn refill the caches
PATIENCE = 10.0  # seconds that a rank waits for the others at most: one of them may hang
PAUSE = 0.002  # seconds between two looks of the one rank that is next


class Turns:
    """One rank's part in it; without a file it has the cores for itself.

    A turn is a lock on one byte of a file that all ranks of the host share, so that a rank gives it back even when it
    dies. The byte after those is the head of the queue.
    """

    def __init__(self, file: IO[bytes] | None = None, places: int = 0):
        self.file, self.places = file, places
        self.until = 0.0

    def take(self) -> None:
        """Return at once while this rank's turn lasts; after it let another rank have the core, and wait for the next.

        The order is the kernel's: about first come, first served.
        """
        if self.file is None or time.monotonic() < self.until:
            return
        self.give()
        fcntl.lockf(self.file, fcntl.LOCK_EX, 1, self.places)
        try:
            last = time.monotonic() + PATIENCE
            while not any(map(self._free, range(self.places))) and time.monotonic() < last:
                time.sleep(PAUSE)
        finally:
            fcntl.lockf(self.file, fcntl.LOCK_UN, 1, self.places)
        self.until = time.monotonic() + TURN

    def give(self) -> None:
        """End this rank's turn, if it has one."""
        self.until = 0.0
        if self.file is not None:
            fcntl.lockf(self.file, fcntl.LOCK_UN, self.places, 0)

    def _free(self, place: int) -> bool:
        """Whether this place was free; now it is this rank's."""
        assert self.file is not None
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except BlockingIOError:
            return False
        return True


def shared(host: Any, places: int) -> Turns:
    """Turns at so many places among the ranks of this communicator; none if they share no temporary folder."""
    with contextlib.ExitStack() as stack:
        name = opened = None
        with contextlib.suppress(OSError):
            if host.rank == 0:
                name = stack.enter_context(tempfile.NamedTemporaryFile(prefix="i2q-turns-")).name
        name = host.bcast(name)
        with contextlib.suppress(OSError):
            opened = open(name, "r+b") if name else None  # noqa: SIM115 (for as long as this process lives)
        everywhere = all(host.allgather(opened is not None))
        return Turns(opened, places) if everywhere else Turns()  # its name goes: nothing is left, however they end
