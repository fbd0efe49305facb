"""Every test: one thread, no display, signals as in a terminal."""

import os
import signal

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy and torch are imported; the programs that tests start inherit it
os.environ["MPLBACKEND"] = "Agg"

from pathlib import Path

import pytest
import torch

from common.nets import MLP

# a suite in the background or under nohup ignores these, and so would the programs that it starts and interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are computed by PyTorch at the start of a test, whatever a run of the test before had compiled."""
    monkeypatch.setattr(MLP, "kernels", None)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Where a test's runs go: a folder of its own, never the checkout's data/."""
    return tmp_path / "data"
