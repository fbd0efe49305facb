"""Which process of how many this is. Ranks train different seeds and never talk while they train."""

import os
import time
from dataclasses import dataclass
from typing import Any

SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")  # set by MPICH's, Open MPI's and Slurm's launchers
LOCAL_SIZES = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_STEP_TASKS_PER_NODE")


@dataclass(frozen=True)
class Ranks:
    rank: int = 0
    size: int = 1
    local_size: int = 1  # ranks on this host, which share its cores
    comm: Any = None

    @classmethod
    def detect(cls) -> "Ranks":
        """This process's place under a launcher; alone without one, where mpi4py is not even imported.

        Raises ValueError where launcher and MPI library do not match: every process would take itself for rank 0 of 1
        and all would write seed 0.
        """
        expected = max((int(os.environ[name]) for name in SIZES if os.environ.get(name, "").isdigit()), default=0)
        if expected == 0:
            return cls()
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise ValueError(
                f"started as one of {expected} processes, but mpi4py does not load ({error}): "
                "pip install mpi4py mpich, and start with the mpirun of the same environment"
            ) from None
        comm = MPI.COMM_WORLD
        if comm.size != expected:
            library = MPI.Get_library_version().split("\n")[0].strip("\0 ")
            raise ValueError(
                f"the launcher started {expected} processes, but MPI counts {comm.size} ({library}): the launcher "
                "belongs to another MPI; use the mpirun that was installed with mpi4py's library (.venv/bin/mpirun)"
            )
        local = [int(os.environ[name].split("(")[0]) for name in LOCAL_SIZES if os.environ.get(name)]
        return cls(comm.rank, comm.size, local[0] if local else comm.size, comm)

    def threads(self) -> int:
        """A fair share of this host's cores."""
        return max(1, len(os.sched_getaffinity(0)) // self.local_size)

    def wait(self) -> None:
        """Return when every rank is here. Sleeps meanwhile: MPI's own barrier would keep a core busy."""
        if self.comm is not None:
            barrier = self.comm.Ibarrier()
            while not barrier.Test():
                time.sleep(0.1)
