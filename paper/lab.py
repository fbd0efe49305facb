"""What `run_all.sh --scale lab` trains: the runs that decide the paper's claims at the least cost.

LAB is data alone: seeds and steps by row. Its first tier gives every panel of the paper's figures its learners; the
second adds seeds, steps and settings. A row counts all seeds from 0 on: those that results/ has are not trained again.
With the seeds of both tiers every claim can be decided: one that holds in all seeds passes Holm's correction for all
claims of the paper. A test counts that; four seeds against four, as the paper has them in some figures, would not.
"""

from dataclasses import dataclass

from paper.figures import CHEETAH, D3G, DISCRETE_D3G, DRQN, GAME, I2Q, IDDPG, IQL, MANY, MBPO, REFERENCES, SMAX

ROBOTS = ("2x3Walker", "2x4Ant", "3x1Hopper", "2-4HalfCheetah")
RELEASED = "i2q_expectile --form released"


@dataclass(frozen=True)
class Part:
    """Some rows of one size: every line on every task."""

    tier: int
    tasks: tuple[str, ...]
    lines: tuple[str, ...]
    seeds: int
    epochs: int  # of 10,000 steps
    size: str = ""  # more flags, which an experiment's name leaves out


LAB = (
    Part(1, (GAME,), (I2Q, f"{I2Q} --batches shared"), 8, 55),
    Part(1, (GAME,), (IDDPG, D3G, MBPO), 6, 55),
    Part(1, (GAME,), (f"{I2Q} --lam 2", f"{I2Q} --rule 1"), 8, 55),
    Part(1, (GAME,), (f"{I2Q} --pi_lr 0.0001",), 8, 55),  # docs/trap.md: policies do not die
    Part(1, (CHEETAH,), (I2Q, IDDPG, MBPO), 10, 20),
    Part(1, (CHEETAH,), (D3G, RELEASED, f"{I2Q} --rule released"), 5, 20),
    Part(1, ROBOTS, (I2Q, IDDPG, MBPO, D3G), 3, 20),
    Part(1, ("2x3Walker",), (f"{I2Q} --pi_lr 0.0001", f"{IDDPG} --pi_lr 0.0001"), 3, 20),  # docs/i2q_ddpg.md: they die
    Part(1, ("2x3Walker", "2x4Ant", "3x1Hopper"), (f"{I2Q} --rule released",), 3, 20),  # robots that fall
    Part(1, ("2-4HalfCheetah",), ("ippo",), 3, 20),
    Part(1, ("StochasticDifferentialGame-3",), (I2Q, IDDPG, D3G), 6, 55),
    Part(1, ("StochasticDifferentialGame-3",), (MBPO,), 4, 55),
    Part(1, MANY, (f"{I2Q} --obs full", f"{IDDPG} --obs full"), 5, 10),
    Part(1, (GAME,), (f"{I2Q} --lam 3", f"{I2Q} --lam 4", f"{I2Q} --lam 10"), 3, 55),
    Part(1, (CHEETAH,), tuple(REFERENCES.values()), 4, 20),
    Part(1, (GAME,), tuple(REFERENCES.values()), 4, 55),
    Part(2, ("smax:3m",), (IQL, DRQN, f"{DRQN} --form no_f", DISCRETE_D3G), 3, 50, SMAX),
    Part(2, ("smax:2s3z",), (IQL, DRQN, f"{DRQN} --form no_f", DISCRETE_D3G), 3, 30, SMAX),
    Part(2, ("smax:8m",), (IQL, DRQN), 3, 50, SMAX),
    Part(2, (GAME,), (I2Q,), 10, 55),
    Part(2, (CHEETAH,), (f"{I2Q} --rule 2",), 4, 20),
    Part(2, MANY, (f"{RELEASED} --obs full",), 4, 10),
    Part(2, (CHEETAH,), (I2Q, IDDPG), 5, 50),
    Part(2, (CHEETAH,), (f"{I2Q} --lam 0.005", f"{I2Q} --lam 0.02", f"{I2Q} --lam 0.05"), 3, 20),
    Part(2, ("3x2Walker",), (I2Q, IDDPG, D3G), 3, 20),
    Part(2, ("DifferentialGame-2", "DifferentialGame-4", "DifferentialGame-5"), (I2Q, IDDPG), 3, 55),
    Part(2, (CHEETAH,), (D3G, RELEASED, f"{I2Q} --rule released"), 8, 20),
    Part(2, ROBOTS, (I2Q, IDDPG, MBPO, D3G), 8, 20),
    Part(2, (GAME,), ("i2q_expectile --form b7",), 4, 55),
    # last: docs/trap.md excludes shared batches as what frees a seed
    Part(2, (GAME,), (f"{I2Q} --lam 2 --batches shared", f"{I2Q} --rule 1 --batches shared"), 8, 55),
)
