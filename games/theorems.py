"""The paper's theorems on small random games: tabular I2Q beside value iteration, and a picture of both.

    python -m games.theorems --out theorems.png

Two agents, three actions each; gamma .9. The joint action (a_0, a_1) in state s means the successor next(s, a_0, a_1);
moving to s' pays r(s, s') ~ U(0, 1). Agents learn from transitions drawn uniformly; agent i sees (s, a_i, r, s').

Theorem 2. In a deterministic game Q_i(s,a_i) of I2Q converges to max over a_-i of Q(s,a), the team's optimum.

Theorem 3's kind. A move succeeds with some probability only; else the game ends, with nothing (`accident`) or with more
    than any play is worth (`luck`). I2Q learns the value of what can happen, the team gets the value of what does.
    With s'* the successor that I2Q counts on, P = min_s max_a P(s'* | s, a) and span = max_s of the spread of
    r + gamma V over the possible successors,
        |V_I2Q - V*|_inf <= (1 - P) span / (1 - gamma).
    That bound and its proof (docs/theorems.md) are ours: the paper's Theorem 3 was not at hand.

Theorem 4. If agent i uses fo_i for its ideal transition function f_i(s,a_i) = s'*, then
        |Qo_i - Q_i|_inf <= (T + gamma G) / (1 - gamma) |fo_i - f_i|_inf,   G = max|dQ_i/ds|, T = max|dr/ds'|.
    Shown on a line of 101 points, x' = clip(x + .05 (a_0 + a_1 - 2)), with a smooth random reward.

Paper: Jiang & Lu 2022, "I2Q: A Fully Decentralized Q-Learning Algorithm".
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.console import say
from common.parser import Parser, number
from common.program import status
from curves.style import COLOURS, SUFFIXES, canvas, log_ticks, save

A = 3  # actions of either agent
GAMMA = 0.9
JACKPOT = 20.0  # what luck pays; playing on is worth 1 / (1 - GAMMA) = 10 at most


@dataclass(frozen=True)
class Config:
    games: int = 20
    states: int = 6
    steps: int = 20_000
    alpha: float = 0.5
    seed: int = 0


class Games(NamedTuple):
    """G games of n states. The last state is the end: nothing leaves it and nothing is paid there."""

    next: np.ndarray  # (G, n, A, A) the successor that a joint action means
    rew: np.ndarray  # (G, n, n) r(s, s')


def random_games(n_games: int, n_states: int, rng: np.random.Generator) -> Games:
    successor = rng.integers(n_states, size=(n_games, n_states + 1, A, A))
    rew = rng.uniform(size=(n_games, n_states + 1, n_states + 1))
    successor[:, -1], rew[:, -1], rew[..., -1] = n_states, 0, 0  # no move means the end
    return Games(successor, rew)


def transitions(games: Games, p: float) -> np.ndarray:
    """P(s' | s, a_0, a_1): (G, n, A, A, n). A move succeeds with probability p, else the game ends."""
    states = np.eye(games.rew.shape[-1])
    return p * states[games.next] + (1 - p) * states[-1]


def value_iteration(prob: np.ndarray, rew: np.ndarray) -> np.ndarray:
    """The team's optimal Q(s, a_0, a_1): (G, n, A, A), to 1e-10."""
    q, old = np.zeros(prob.shape[:-1]), np.inf
    while np.abs(q - old).max() > 1e-10 * (1 - GAMMA):
        old = q
        q = np.einsum("gsabt,gst->gsab", prob, rew + GAMMA * q.max((2, 3))[:, None])
    return q


def i2q(prob: np.ndarray, rew: np.ndarray, steps: int, alpha: float, rng: np.random.Generator) -> np.ndarray:
    """Both agents' Q_i(s, a_i) after so many uniformly drawn transitions of every game: (G, 2, n, A)."""
    n_games, n = rew.shape[:2]
    cdf = prob.cumsum(-1)
    game, agent = np.arange(n_games)[:, None], np.arange(2)
    q, qss = np.zeros((n_games, 2, n, A)), np.zeros((n_games, 2, n, n))
    seen = np.zeros((n_games, 2, n, A, n), bool)  # successors by (s, a_i), of agent i
    for _ in range(steps):
        s, act = rng.integers(n, size=(n_games, 1)), rng.integers(A, size=(n_games, 2))
        t = (cdf[game[:, 0], s[:, 0], act[:, 0], act[:, 1]] <= rng.random((n_games, 1))).sum(-1, keepdims=True)
        seen[game, agent, s, act, t] = True
        onward = np.where(seen[game, agent, t].any(2), qss[game, agent, t], -np.inf).max(-1)
        target = rew[game, s, t] + GAMMA * np.where(np.isfinite(onward), onward, 0)  # nothing seen there yet: 0
        qss[game, agent, s, t] += alpha * (target - qss[game, agent, s, t])
        best = np.where(seen[game, agent, s, act], qss[game, agent, s], -np.inf).argmax(-1)  # s'*
        target = rew[game, s, best] + GAMMA * q[game, agent, best].max(-1)
        q[game, agent, s, act] += alpha * (target - q[game, agent, s, act])
    return q


def optimum(q: np.ndarray) -> np.ndarray:
    """What Theorem 2 says of both agents: max over the other's action of Q(s, a_0, a_1): (G, 2, n, A)."""
    return np.stack([q.max(-1), q.max(-2)], 1)


def chance_errors(games: Games, luck: bool, ps: np.ndarray, cfg: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """|V_I2Q - V*|_inf, its bound, and P, for every game and probability of a move's success: each (len(ps), G)."""
    prob = np.concatenate([transitions(games, p) for p in ps])
    rew = np.tile(games.rew, (len(ps), 1, 1))
    rew[:, :-1, -1] = JACKPOT if luck else 0
    value = i2q(prob, rew, cfg.steps, cfg.alpha, np.random.default_rng([cfg.seed, 3])).max(-1).mean(1)  # (pG, n)
    error = np.abs(value - value_iteration(prob, rew).max((2, 3)))[:, :-1].max(-1)
    possible = (prob > 0).any((2, 3))
    worth = rew + GAMMA * value[:, None]
    best = np.where(possible, worth, -np.inf).argmax(-1)
    reach = np.take_along_axis(prob.max((2, 3)), best[..., None], -1)[:, :-1].min((1, 2))
    spread = np.where(possible, worth, -np.inf).max(-1) - np.where(possible, worth, np.inf).min(-1)
    bound = (1 - reach) * spread.max(-1) / (1 - GAMMA)
    return error.reshape(len(ps), -1), bound.reshape(len(ps), -1), reach.reshape(len(ps), -1)


def line_game(rng: np.random.Generator, n: int = 101) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points x (n,), next (n, A, A) and r(x, x') (n, n) = a sum of sines of random phase, smooth in both."""
    x = np.linspace(0, 1, n)
    move = 0.05 * (np.arange(A)[:, None] + np.arange(A) - 2)
    successor = np.rint(np.clip(x[:, None, None] + move, 0, 1) * (n - 1)).astype(int)
    k, phase = rng.uniform(1, 4, (2, 5)), rng.uniform(0, 2 * np.pi, (2, 5))
    wave = np.sin(2 * np.pi * k[:, None] * x[:, None] + phase[:, None])  # (2, n, 5)
    return x, successor, 0.5 + 0.1 * wave[0] @ wave[1].T


def ideal_transition(successor: np.ndarray, rew: np.ndarray) -> np.ndarray:
    """f_0(s, a_0), the best successor of a deterministic game that agent 0 may reach with a_0: (n, A)."""
    value = value_iteration(np.eye(len(rew))[successor][None], rew[None])[0].max((1, 2))
    worth = (rew + GAMMA * value)[np.arange(len(rew))[:, None, None], successor]
    return np.take_along_axis(successor, worth.argmax(-1)[..., None], -1)[..., 0]


def q_along(f: np.ndarray, rew: np.ndarray) -> np.ndarray:
    """Q(s, a) = r(s, f(s,a)) + gamma max Q(f(s,a), .): (n, A)."""
    q = np.zeros(f.shape)
    for _ in range(400):  # .9^400 < 1e-18
        q = rew[np.arange(len(f))[:, None], f] + GAMMA * q.max(-1)[f]
    return q


def perturbation(x: np.ndarray, successor: np.ndarray, rew: np.ndarray, cells: int, rng: np.random.Generator) -> Any:
    """|fo - f|_inf, |Qo - Q|_inf and Theorem 4's bound, where fo is f moved by up to `cells` points at random."""
    f = ideal_transition(successor, rew)
    moved = np.clip(f + rng.integers(-cells, cells + 1, f.shape), 0, len(x) - 1)
    q = q_along(f, rew)
    # quotients of neighbours: the largest over all pairs is among them
    slope_q, slope_r = (np.abs(np.diff(y, axis=k) / np.diff(x)[0]).max() for y, k in ((q, 0), (rew, 1)))
    delta = np.abs(x[moved] - x[f]).max()
    return delta, np.abs(q_along(moved, rew) - q).max(), (slope_r + GAMMA * slope_q) / (1 - GAMMA) * delta


def theorem_2(cfg: Config, axes: Any) -> None:
    """How far agents' values are from the optimum, by the number of transitions."""
    games = random_games(cfg.games, cfg.states, np.random.default_rng([cfg.seed, 1]))
    prob = transitions(games, 1.0)
    best = optimum(value_iteration(prob, games.rew))
    say(f"Theorem 2: |Q_i - max Q|_inf, median and worst of {cfg.games} games")
    steps = np.unique(np.geomspace(min(100, cfg.steps), cfg.steps, 9).astype(int))
    curve = [
        np.abs(i2q(prob, games.rew, n, cfg.alpha, np.random.default_rng([cfg.seed, 2])) - best).max((1, 2, 3))
        for n in steps
    ]
    for n, errors in zip(steps, curve):
        say(f"{n:>8} transitions {np.median(errors):>10.2e} {errors.max():>10.2e}")
    axes.loglog(steps, np.median(curve, 1), "o-", color=COLOURS[0], label="median")
    axes.loglog(steps, np.max(curve, 1), "s--", color=COLOURS[1], label="worst game")
    axes.set(title="Theorem 2: deterministic games", xlabel="transitions", ylabel="|Q_i - max Q| (max norm)")


def theorem_3(cfg: Config, axes: Any) -> None:
    """Error and bound where moves succeed with some probability only."""
    games = random_games(cfg.games, cfg.states, np.random.default_rng([cfg.seed, 1]))
    ideal = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99])
    say("Theorem 3's kind: |V_I2Q - V*|_inf and its bound, means over games, by P, the probability of s'*")
    for name, ps, style, colour in (("accident", ideal, "o-", COLOURS[0]), ("luck", 1 - ideal, "s-", COLOURS[1])):
        error, bound, reach = (x.mean(1) for x in chance_errors(games, name == "luck", ps, cfg))
        for row in zip(reach, error, bound):
            say(f"{name:>8}  P {row[0]:.2f} error {row[1]:>7.3f} bound {row[2]:>8.3f}")
        axes.plot(reach, error, style, color=colour, label=f"{name}: error")
        axes.plot(reach, bound, ":", color=colour, label=f"{name}: bound")
    axes.set(title="Theorem 3's kind: stochastic games", xlabel="P, probability of s'*")
    axes.set(ylabel="|V_I2Q - V*| (max norm)", yscale="symlog", ylim=(0, None))


def theorem_4(cfg: Config, axes: Any) -> None:
    """Error and bound where the ideal transition function is wrong by so much."""
    rng = np.random.default_rng([cfg.seed, 4])
    lines = [line_game(rng) for _ in range(cfg.games)]
    points = np.array([[perturbation(*line, cells, rng) for line in lines] for cells in (0, 1, 2, 5, 10)])  # (c, G, 3)
    say("Theorem 4: |Qo - Q|_inf and its bound, mean over games, and the largest share of the bound")
    for row in points:
        share = np.divide(row[:, 1], row[:, 2], out=np.zeros(len(row)), where=row[:, 2] > 0).max()
        delta, error, bound = row.mean(0)
        say(f"|fo - f| {delta:.3f} error {error:>7.3f} bound {bound:>8.3f}   {share:.2f}")
    axes.plot(points[..., 0].mean(1), points[..., 1].mean(1), "o-", color=COLOURS[0], label="error")
    axes.plot(points[..., 0].mean(1), points[..., 2].mean(1), ":", color="#555555", label="bound")
    axes.set(title="Theorem 4: a wrong transition function", xlabel="|fo - f| (max norm)")
    axes.set(ylabel="|Qo - Q| (max norm)", yscale="symlog", ylim=(0, None))


def arguments(argv: Sequence[str] | None) -> tuple[Config, Path]:
    """What to compute, and where the picture goes."""
    parser = Parser("theorems", __doc__)
    add, default = parser.add_argument, Config()
    add("--games", type=number(1), default=default.games, help="random games that every number is taken over")
    add("--states", type=number(2, 100), default=default.states, help="states of a random game, its end not counted")
    add("--steps", type=number(1), default=default.steps, help="transitions that agents learn from")
    add("--alpha", type=number(0, 1, float), default=default.alpha, help="how far an update moves an entry, 0 .. 1")
    add("--seed", type=number(0), default=default.seed, help="of games and transitions")
    add("--out", default="theorems.png", help="the picture: .png, .pdf or .svg")
    args = parser.parse_args(argv)
    if Path(args.out).suffix not in SUFFIXES or not Path(args.out).absolute().parent.is_dir():
        parser.error(f"--out {args.out!r}: give a {', '.join(SUFFIXES)} file in a folder that exists")
    return Config(args.games, args.states, args.steps, args.alpha, args.seed), Path(args.out)


def compute(cfg: Config, out: Path) -> None:
    """Print the numbers of every theorem, and draw them."""
    with canvas(1, 3, (12, 3.4)) as (figure, axes):
        for theorem, ax in zip((theorem_2, theorem_3, theorem_4), axes[0]):
            theorem(cfg, ax)
            ax.legend(frameon=False)
            log_ticks(ax)
    save(figure, out)
    say(f"picture: {out}")


def main(argv: Sequence[str] | None = None) -> int:
    cfg, out = arguments(argv)
    return status("theorems", lambda: compute(cfg, out))


if __name__ == "__main__":
    sys.exit(main())
