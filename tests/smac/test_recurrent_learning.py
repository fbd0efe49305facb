"""Short runs that only a whole and right update gets through: greedy agents win the didactic skirmish."""

import pytest
from helpers.recurrent import IDS, LEARNERS, command, rows_of

from smac import iql

SMALL = {"rnn_hid": 32, "batch_size": 16, "lr": 1e-3, "n_envs": 4, "update_every": 2, "epsilon_steps": 3000}
SMALL |= {"steps_per_epoch": 2000, "epochs": 3, "num_test_episodes": 1, "replay_size": 5000, "replay_steps": 200_000}
SMALL |= {"target_every": 200}


@pytest.mark.parametrize("module, flags", LEARNERS, ids=IDS)
def test_it_wins_the_skirmish(module, flags, data_dir):
    flags = {**SMALL, **flags, **({} if module is iql else {"hid": 32})}
    assert command(module, data_dir, seed=1, **flags) == 0
    rows = rows_of(data_dir / "x" / "x_s1")
    assert max(row["TestWinRate"] for row in rows) == 1  # nothing is random: a greedy policy always wins or never
    assert rows[-1]["AverageEpRet"] > 1  # with a twentieth of its actions at random; 0.3 with all of them
