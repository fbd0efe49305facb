"""How a small program ends: with a status, and in one line where it was no defect. No torch."""

import os
import sys
from collections.abc import Callable

from common.errors import exit_status, last_words


def status(program: str, work: Callable[[], None]) -> int:
    """Do `work`; the status that `program` ends with, after saying why where that is not 0."""
    try:
        work()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has seen enough; Python's last flush must not complain of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        print(last_words(program, error), file=sys.stderr)
        return exit_status(error) or 1
    return 0
