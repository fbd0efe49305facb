"""Where the rows of progress.txt go besides: TensorBoard's event files, and Weights & Biases."""

import importlib.util
import os
import secrets
from pathlib import Path
from typing import Any

from common.errors import UsageError


def check(config: Any) -> None:
    """Raise UsageError for a writer that is asked for and not installed."""
    for name in ("tensorboard", "wandb"):
        # one without an origin is a mere folder of this name
        if getattr(config, name) and getattr(importlib.util.find_spec(name), "origin", None) is None:
            raise UsageError(f"--{name}: it is not installed; pip install {name}")


def open_writers(config: Any, path: Path, settings: dict[str, Any], start: int) -> list[Any]:
    """The writers of one seed's folder, with its settings; rows after step `start` are still to come."""
    return [
        *([TensorBoard(path, start)] if config.tensorboard else []),
        *([Wandb(path, settings, start)] if config.wandb else []),
    ]


class TensorBoard:
    """Event files in <folder>/tensorboard. Rows that are made again after a resume take the place of the old ones."""

    def __init__(self, path: Path, start: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(path / "tensorboard"), purge_step=start + 1)

    def add(self, columns: dict[str, float], step: int) -> None:
        for name, value in columns.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class Wandb:
    """A run of Weights & Biases for each seed, grouped by experiment, in the project WANDB_PROJECT or "i2q".

    A resumed run goes on in its own, whose id is kept in <folder>/wandb/id. With WANDB_MODE=offline nothing needs the
    network: `wandb sync` uploads the runs of <folder>/wandb later, with --append where a run was resumed.
    """

    def __init__(self, path: Path, settings: dict[str, Any], start: int):
        """Raises UsageError where it cannot log in."""
        import wandb  # pyright: ignore[reportMissingImports]

        known = path / "wandb" / "id"
        if start == 0 or not known.exists():
            known.parent.mkdir(exist_ok=True)
            known.write_text(secrets.token_hex(4))
        try:
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "i2q"),
                group=settings["exp_name"],
                name=path.name,
                id=known.read_text(),
                resume="allow",
                reinit="create_new",  # the seeds of a process are runs side by side
                dir=path,
                config=settings,
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise UsageError(f"--wandb: {reason}; WANDB_MODE=offline needs no account and no network") from None

    def add(self, columns: dict[str, float], step: int) -> None:
        self.run.log(columns, step=step)

    def close(self) -> None:
        self.run.finish()
