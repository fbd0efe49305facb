"""What the programs that train several learners share: a command line, a run folder for each seed of each learner."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.console import say
from common.disk import write_atomic
from common.errors import UsageError, exit_status, files
from common.flags import parse
from common.folder import Lock
from common.layout import CONFIG, PROGRESS, differences, read_config, refuse_names, refuse_strays, run_folder
from common.provenance import commit, versions
from common.ranks import Ranks


def main(
    config_class: type,
    defaults: Callable[[str, str], dict[str, Any]],
    doc: str | None,
    name: str,
    work: Callable[[Any], None],
) -> int:
    """Parse the flags and do the work. Exit status: 0 done, 1 the disk refuses, 2 usage, 130 interrupted."""
    try:
        if Ranks.launched() > 1:
            text = f"started as one of {Ranks.launched()} processes, but one process trains all seeds: leave out mpirun"
            raise UsageError(text if Ranks.claimed() == 0 else "")
        work(parse(config_class, defaults, doc, name))
    except KeyboardInterrupt:
        say(f"{name}: stopped; rerun the same command to go on with what is not finished", sys.stderr)
        return 130
    except Exception as error:
        if not exit_status(error):
            raise
        if str(error):  # an empty one is said by another rank
            say(f"{name}: {error}", sys.stderr)
        return exit_status(error)
    return 0


@dataclasses.dataclass(frozen=True)
class Seed:
    """One seed of one learner: where it is kept, and its settings."""

    folder: Path
    settings: dict[str, Any]

    @classmethod
    def of(cls, cfg: Any, learner: str, seed: int) -> "Seed":
        name = f"{cfg.exp_name}_{learner}"
        settings = {"algorithm": learner, **dataclasses.asdict(cfg), "exp_name": name, "seed": seed}
        del settings["learners"]
        return cls(run_folder(cfg.data_dir, name, seed), settings)

    def finished(self) -> bool:
        """Whether it is trained. Raises UsageError where its folder holds a run of other settings."""
        refuse_names(self.folder)
        refuse_strays(self.folder)
        if not (self.folder / CONFIG).exists():
            return False
        if text := differences(read_config(self.folder), self.settings):
            raise UsageError(
                f"{self.folder}: holds a run with {text}; give another --exp_name, or the flags of that run"
            )
        return (self.folder / PROGRESS).exists()

    def begin(self) -> None:
        """Make its folder, with its settings. Raises UsageError where that fails."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            made = {"versions": versions(), "commits": [commit()] if commit() else []}
            write_atomic(self.folder / CONFIG, (json.dumps({**self.settings, **made}, indent=1) + "\n").encode())
        except OSError as error:
            raise UsageError(f"{self.folder}: {error}; give another --exp_name or --data_dir") from None


@contextlib.contextmanager
def unfinished(seeds: Sequence[Seed]) -> Iterator[list[Seed]]:
    """Those of one learner's seeds that are to be trained, locked and begun; says which are finished.

    Raises UsageError where a folder holds a run of other settings, or another process has it.
    """
    with contextlib.ExitStack() as stack:
        for seed in [seed for seed in seeds if not seed.finished()]:  # all are asked before a folder is made
            stack.enter_context(Lock(seed.folder, seed.settings["data_dir"]))
        todo = [seed for seed in seeds if not seed.finished()]  # another process may have finished one meanwhile
        if done := " ".join(f"s{seed.settings['seed']}" for seed in seeds if seed not in todo):
            say(f"{seeds[0].settings['algorithm']} {done} finished already: {seeds[0].folder.parent}")
        for seed in todo:
            seed.begin()
        yield todo


def run_folders(names: Sequence[str]) -> list[Path]:
    """The run folders in these folders, each once. Raises UsageError where one holds none: its name may be a slip."""
    found: dict[Path, None] = {}
    for name in names:
        below = sorted(path.parent for path in Path(name).rglob(CONFIG))
        if not below:
            raise UsageError(f"no run folder, one with a {CONFIG}, in {name}")
        found |= dict.fromkeys(below)
    return list(found)


def write_table(path: Path, names: Sequence[str], columns: Sequence[np.ndarray] | np.ndarray) -> None:
    """Tab-separated, header first. Raises Unwritten, with what was there as it was, where the disk refuses."""
    rows = ["\t".join(f"{value:.10g}" for value in row) for row in zip(*columns, strict=True)]
    with files():
        write_atomic(path, "\n".join(["\t".join(names), *rows, ""]).encode())
