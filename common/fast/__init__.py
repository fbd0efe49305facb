"""What makes stacks of small networks fast: passes, compiled kernels, records. Imports nothing else of ours."""


class Refused(RuntimeError):
    """What the fast path cannot do: one line names the way out, and a program prints it and ends with this status."""

    exit_status = 2
