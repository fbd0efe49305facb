"""What a process does when it is told to end."""

import contextlib
import os
import signal
import time
from typing import Any

ECHO = 0.5  # seconds: a scheduler signals every process of a job, and its launcher passes the same signal on


class Stopped(BaseException):
    """A signal asked this process to end. No Exception, as an environment's step is free to catch those."""

    def __init__(self, signum: int, text: str = ""):
        super().__init__(text or f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Signals:
    """What SIGINT, SIGTERM and SIGHUP do: while `held` the first is noted, for a run to save; later ones end it.

    Ending at once is safe anywhere, as files are written whole or not at all.
    """

    def __init__(self, speaks: bool = True):
        self.held, self.signum, self.noted, self.speaks = False, 0, 0.0, speaks
        self.before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        for signum, handler in self.before.items():
            if handler is not signal.SIG_IGN:  # nohup's wish is obeyed
                signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, frame: Any) -> None:
        if self.signum and time.monotonic() < self.noted + ECHO:
            return
        if self.signum or not self.held:
            raise Stopped(signum)
        self.signum, self.noted = signum, time.monotonic()
        text = f"\n{signal.Signals(signum).name}: saving after this step; press again to stop at once\n"
        with contextlib.suppress(OSError):  # after SIGHUP nobody hears it
            os.write(2, text.encode() if self.speaks else b"")  # sys.stderr's lock may be held by what is interrupted

    def restore(self) -> None:
        """Give the signals back to whom they belonged."""
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
