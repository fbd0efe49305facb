"""Which process of how many this is. Ranks train different seeds and share nothing meanwhile but a host's cores."""

import os
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

from common.errors import UsageError
from common.turns import Turns, shared

# set by the launchers of MPICH, Open MPI and Slurm: how many processes it started, and which of them this is
LAUNCHERS = (
    ("PMI_SIZE", "PMI_RANK"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)


@dataclass(frozen=True)
class Ranks:
    rank: int = 0
    size: int = 1
    threads: int = 1  # this process's share of its host's cores
    comm: Any = None
    turns: Turns = field(default_factory=Turns)  # at the cores, where its host has fewer of them than ranks

    @classmethod
    def detect(cls) -> "Ranks":
        """This process's place under a launcher; alone without one, where mpi4py is not even imported.

        Raises UsageError where launcher and MPI library do not match: every process would take itself for rank 0 of 1
        and all would write seed 0.
        """
        expected = cls.launched()
        if expected <= 1:
            return cls(threads=len(own_cores()))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of a strange launcher: it is refused below
                from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise UsageError(
                f"started as one of {expected} processes, but mpi4py does not load ({error}): "
                "pip install mpi4py mpich, and start with the mpirun of the same environment"
            ) from None
        comm = MPI.COMM_WORLD
        if comm.size != expected:
            library = " ".join(MPI.Get_library_version().split("\n")[0].strip("\0 ").split())
            raise UsageError(
                f"the launcher started {expected} processes, but MPI counts {comm.size} ({library}): the launcher "
                "belongs to another MPI; use the mpirun that was installed with mpi4py's library (.venv/bin/mpirun)"
            )
        cls(comm=comm).wait()  # for ranks that are still starting: MPI would keep a core busy meanwhile
        host = comm.Split_type(MPI.COMM_TYPE_SHARED)
        own = host.allgather(own_cores())
        cores = set().union(*own)  # a launcher may have bound each rank to cores of its own
        crowded = host.size > len(cores) and all(mine == cores for mine in own)
        turns = shared(host, len(cores)) if crowded else Turns()
        return cls(comm.rank, comm.size, max(1, len(cores) // host.size), comm, turns)

    @staticmethod
    def launched() -> int:
        """How many processes the launcher says it started: 1 without one."""
        return next((int(os.environ[size]) for size, _ in LAUNCHERS if os.environ.get(size, "").isdigit()), 1)

    @staticmethod
    def claimed() -> int:
        """The rank that the launcher says this is: where MPI itself says nothing, one rank is to speak for all."""
        return next((int(os.environ[rank]) for _, rank in LAUNCHERS if os.environ.get(rank, "").isdigit()), 0)

    def wait(self) -> None:
        """Return when every rank is here. Sleeps meanwhile: MPI's own barrier would keep a core busy."""
        if self.comm is not None:
            barrier = self.comm.Ibarrier()
            while not barrier.Test():
                time.sleep(0.1)


def own_cores() -> set[int]:
    """The cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
