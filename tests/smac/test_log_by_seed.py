"""Seeds that are updated at different times: means are over each seed's own updates, and go on after a stop."""

import numpy as np
import pytest
import torch

from common.log import Log


def of(value: float) -> dict[str, torch.Tensor]:
    return {"LossQ": torch.full((1, 2), value)}


def test_means_are_over_the_updates_of_each_seed():
    log = Log(3)
    for row, value in ((0, 1.0), (0, 3.0), (2, 7.0)):
        log.update(of(value), row)
    assert [log.row(0)["LossQ"], log.row(2)["LossQ"]] == [2, 7]
    assert np.isnan(log.row(1)["LossQ"])
    assert log.last["LossQ"].tolist() == [[3, 3], [0, 0], [7, 7]]
    other = Log(2)
    for row, old in ((0, 2), (1, 0)):
        other.load_state_dict(row, log.state_dict(old), "cpu")
    other.update(of(5.0), 1)
    assert [other.row(0)["LossQ"], other.row(1)["LossQ"]] == pytest.approx([7, 3])


def test_updates_of_one_seed_and_of_all_add_up():
    log = Log(2)
    log.update({"LossQ": torch.tensor([[1.0], [2.0]])})
    log.update({"LossQ": torch.tensor([[4.0]])}, 1)
    assert [log.row(row)["LossQ"] for row in (0, 1)] == [1, 3]
