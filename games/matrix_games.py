"""Tabular I2Q and independent Q-learning (IQL) where the optimum can be computed: trees of matrix games.

Two agents with three actions each walk down a tree: at node s the joint action (a_0, a_1) leads to one of nine
children. An agent sees the node, its own action and the team's reward, never the other's action.

    trees        100 random games of five layers, 66,430 nodes each: leaving node s pays r(s) ~ U(-1, 1); the leaves
                 end the episode and pay nothing
    two-optima   one layer, pay-off [[9.99, 10, 0], [10, 0, 0], [0, 0, 0]]: two optimal joint actions, of which the
                 agents have to choose the same one

    iql          Q_i(s,a_i) <- Q_i(s,a_i) + alpha (r + max_a Q_i(s',a) - Q_i(s,a_i))
    i2q          the same at s'* = argmax of Qss_i(s,s') over the successors that agent i has SEEN follow (s,a_i), with
                 Qss_i(s,s') <- Qss_i(s,s') + alpha (r + max_s'' Qss_i(s',s'') - Qss_i(s,s'))
    i2q_eta      i2q; actions of equal value are ordered by eta(s'*(s,a_i)), a random function of the state that all
                 agents draw from the same seed

Undiscounted. A score is the return of the greedy joint policy over the best return of the game; where that is negative,
as in some trees of one or two layers, it is 1 - (best - return) / |best|. So 1 is optimal, and less is worse.

Paper: Jiang & Lu 2022, "I2Q: A Fully Decentralized Q-Learning Algorithm", with its appendix B.5 for the second game
(its pay-off is a reconstruction). The random games and their settings are those of the released code.
Departures:
- Every agent draws its batches apart, from its own replay.
- An entry that a batch draws several times is updated once, by the last draw: a batch is one array operation.
- Actions whose values differ by less than TIE are tied; without eta every agent breaks ties at random, by itself.

python -m games.matrix_games trains every learner on seed .. seed + num_runs - 1, each seed in a folder of its own.
Seeds that are finished are not trained again, so an interrupted command is given once more.
"""

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from common.console import say
from common.errors import UsageError
from common.flags import Count, FirstSeed, Natural, Range, Unit, check_ranges
from common.layout import PROGRESS, read_table
from games.shared import Seed, main, unfinished, write_table

N_ACT = 3  # actions of either agent
WIDTH = N_ACT * N_ACT  # children of a node
TIE = 1e-5  # float32 values near 10 that are updated towards the same target stop within 5e-6 of each other
TWO_OPTIMA = np.array([[9.99, 10, 0], [10, 0, 0], [0, 0, 0]])

Learner = Literal["iql", "i2q", "i2q_eta"]
SETTINGS: dict[str, dict[str, Any]] = {
    "two-optima": {"learners": ("iql", "i2q", "i2q_eta"), "layers": 1, "steps": 2_000, "start_steps": 500},
}


@dataclass(frozen=True)
class Config:
    env: Literal["trees", "two-optima"] = "trees"  # which games
    learners: tuple[Learner, ...] = ("iql", "i2q")  # who learns them
    seed: FirstSeed = 0  # first seed, of exploration and replay; the games are the same for all seeds
    num_runs: Count = 4  # seeds to train
    games: Count = 100  # games that a seed learns side by side; two-optima: repetitions of the one game
    exp_name: str = ""  # name of the experiment; default: matrix_games_<env>; a learner's folder adds its name
    data_dir: str = "data"  # where experiments are kept
    layers: Annotated[int, Range(1, 6)] = 5  # steps of an episode; two-optima: 1
    steps: Count = 100_000  # environment steps, all of which an agent remembers
    alpha: Unit = 0.1  # how far an update moves an entry to its target, 0 .. 1
    epsilon: Unit = 0.5  # probability of a uniform action, per agent and step
    batch_size: Count = 100  # transitions per update, per agent
    start_steps: Natural = 10_000  # environment steps before the first update
    update_every: Count = 50  # environment steps between blocks of updates
    updates: Count = 10  # updates in a block
    score_every: Count = 100  # environment steps between scores

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.env == "two-optima" and self.layers != 1:
            raise UsageError(f"--layers {self.layers}: two-optima has one layer; leave it out, or give --env trees")
        for name, unit in (("update_every", "layers"), ("score_every", "update_every"), ("steps", "score_every")):
            if getattr(self, name) % getattr(self, unit):
                raise UsageError(
                    f"--{name} {getattr(self, name)}: must be a multiple of --{unit} {getattr(self, unit)}"
                )


class Games:
    """G games of equal depth. An edge is a transition: edge 9 s + 3 a_i + a_j leads from node s to node edge + 1.

    Every agent numbers the tree with its own action first, so both do the same arithmetic; `mirror` (9 I,) maps agent
    1's edges to agent 0's. I inner nodes, E = 9 I edges.
    """

    def __init__(self, rew: np.ndarray):
        self.n_games, self.n_edges = rew.shape
        self.n_inner = self.n_edges // WIDTH
        swapped = np.arange(WIDTH).reshape(N_ACT, N_ACT).T.ravel()
        mirror = np.zeros(self.n_edges + 1, np.int64)  # of nodes: a child's number needs its parent's
        for s in range(self.n_inner):
            mirror[WIDTH * s + 1 : WIDTH * s + 1 + WIDTH] = WIDTH * mirror[s] + 1 + swapped
        self.mirror = mirror[1:] - 1
        self.rew = np.stack([rew, rew[:, self.mirror]], 1).astype(np.float32)  # (G, 2, E) as each agent numbers them
        value = np.zeros((self.n_games, self.n_edges + 1))
        for s in reversed(range(self.n_inner)):
            children = slice(WIDTH * s + 1, WIDTH * s + 1 + WIDTH)
            value[:, s] = (rew[:, WIDTH * s : WIDTH * (s + 1)] + value[:, children]).max(1)
        self.best = value[:, 0]  # (G,) the best return

    @classmethod
    def random(cls, n_games: int, layers: int) -> "Games":
        """Game k is drawn from seed k: r(s) ~ U(-1, 1) for every node, paid on every edge that leaves s."""
        n_inner = (WIDTH**layers - 1) // (WIDTH - 1)
        nodes = [np.random.default_rng(k).uniform(-1, 1, n_inner) for k in range(n_games)]
        return cls(np.repeat(np.stack(nodes), WIDTH, axis=1))

    @classmethod
    def one_stage(cls, payoff: np.ndarray, n_games: int) -> "Games":
        """The matrix game payoff[a_0, a_1], n_games times."""
        return cls(np.repeat(payoff.reshape(1, -1), n_games, axis=0))


class Tables:
    """What the 2 agents of each of G games know. Entry 3 s + a_i is (s, a_i); flat arrays (G * 2 * ...,).

    q: Q_i(s,a_i), 0 at first. For I2Q also qss: Qss_i(s,s') by edge, -inf where not seen yet, and best: its maximum
    over the successors of an entry. The three entries after the inner nodes' are those of every leaf: worth 0.
    """

    def __init__(self, games: Games, learner: Learner, alpha: float):
        self.games, self.learner, self.alpha = games, learner, np.float32(alpha)
        self.rew = games.rew.ravel()
        self.leaf = N_ACT * games.n_inner
        agents = np.arange(games.n_games * 2).reshape(-1, 2, 1)
        self.edge0, self.entry0 = agents * games.n_edges, agents * (self.leaf + N_ACT)  # (G, 2, 1) where each begins
        self.q = np.zeros(agents.size * (self.leaf + N_ACT), np.float32)
        if learner != "iql":
            self.qss = np.full(agents.size * games.n_edges, -np.inf, np.float32)
            self.best = np.full((agents.size, self.leaf + N_ACT), -np.inf, np.float32)
            self.best[:, self.leaf :] = 0
            self.best = self.best.ravel()
        if learner == "i2q_eta":
            eta = np.random.default_rng(0).random(games.n_edges)  # of the node that an edge leads to
            self.eta = np.concatenate([eta, eta[games.mirror]])

    def see(self, edge: np.ndarray) -> None:
        """Agents (G, 2) meet these successors; a new one is worth 0 until it is learned."""
        if self.learner != "iql":
            at, entry = edge + self.edge0[..., 0], edge // N_ACT + self.entry0[..., 0]
            new = self.qss[at] == -np.inf
            self.qss[at[new]] = 0
            self.best[entry[new]] = np.maximum(self.best[entry[new]], 0)

    def successor(self, entry: np.ndarray) -> np.ndarray:
        """The edge to s'* = argmax of Qss over the successors of entries (G, 2, B), as each agent numbers it."""
        first = N_ACT * entry
        at = first + self.edge0
        a, b, c = self.qss.take(at), self.qss.take(at + 1), self.qss.take(at + 2)
        second = b > a
        return first + np.where(c > np.maximum(a, b), 2, second)

    def after(self, table: np.ndarray, edge: np.ndarray) -> np.ndarray:
        """Largest of a table's three entries at the node that `edge` leads to: (G, 2, B)."""
        at = np.minimum(N_ACT * (edge + 1), self.leaf)
        at += self.entry0
        return np.maximum(np.maximum(table.take(at), table.take(at + 1)), table.take(at + 2))

    def update(self, edge: np.ndarray) -> None:
        """Learn from one batch of transitions of every agent: (G, 2, B)."""
        entry = edge // N_ACT
        if self.learner != "iql":
            at = edge + self.edge0
            self.move(self.qss, at, self.rew.take(at) + self.after(self.best, edge))
            edge = self.successor(entry)
            self.best[entry + self.entry0] = self.qss.take(edge + self.edge0)
        target = self.rew.take(edge + self.edge0) + self.after(self.q, edge)
        self.move(self.q, entry + self.entry0, target)

    def move(self, table: np.ndarray, at: np.ndarray, target: np.ndarray) -> None:
        """table[at] <- table[at] + alpha (target - table[at]); of equal indices the last one counts."""
        old = table.take(at)
        target -= old
        target *= self.alpha
        target += old
        table[at.ravel()] = target.ravel()

    def greedy(self, node: np.ndarray, coin: np.ndarray) -> np.ndarray:
        """The best action of each agent at `node` (G, 2); ties by eta, or else by the larger coin (G, 2, 3)."""
        entry = N_ACT * node[..., None] + np.arange(N_ACT)
        if self.learner == "i2q_eta":
            coin = self.eta[self.successor(entry) + np.array([[0], [self.games.n_edges]])]
        q = self.q.take(entry + self.entry0)
        return np.where(q > q.max(-1, keepdims=True) - TIE, coin, -1).argmax(-1)


def edges(node: np.ndarray, act: np.ndarray) -> np.ndarray:
    """The transition as either agent numbers it, its own action first: (G, 2)."""
    return WIDTH * node + N_ACT * act + act[:, ::-1]


def returns(games: Games, tables: Tables, coins: np.ndarray) -> np.ndarray:
    """Return of the greedy joint policy in every game: (G,). coins (layers, G, 2, 3) break ties."""
    node, total = np.zeros((games.n_games, 2), np.int64), np.zeros(games.n_games)
    for coin in coins:
        edge = edges(node, tables.greedy(node, coin))
        total += games.rew[np.arange(games.n_games), 0, edge[:, 0]]
        node = edge + 1
    return total


def train(cfg: Config, games: Games, learner: Learner, seed: int) -> np.ndarray:
    """Returns of the greedy joint policy every `score_every` steps: (steps / score_every, G)."""
    rngs = [np.random.default_rng([seed, game]) for game in range(games.n_games)]
    tables = Tables(games, learner, cfg.alpha)
    replay = np.zeros((games.n_games, 2, cfg.steps), np.int32)  # edges
    replay0 = (np.arange(games.n_games * 2) * cfg.steps).reshape(-1, 2, 1)
    node, history = np.zeros((games.n_games, 2), np.int64), []
    every = cfg.update_every
    for start in range(0, cfg.steps, every):
        # every generator draws a block at a time; a game learns the same alone as beside others
        uniform = np.stack([rng.random((every, 2)) < cfg.epsilon for rng in rngs], 1)
        random = np.stack([rng.integers(N_ACT, size=(every, 2)) for rng in rngs], 1)
        coins = np.stack([rng.random((every + cfg.layers, 2, N_ACT), np.float32) for rng in rngs], 1)
        for k in range(every):
            act = np.where(uniform[k], random[k], tables.greedy(node, coins[k]))
            edge = edges(node, act)
            tables.see(edge)
            replay[..., start + k] = edge
            node = np.where(edge + 1 < games.n_inner, edge + 1, 0)  # a leaf ends the episode
        step = start + every
        if step >= cfg.start_steps:
            size = (2, cfg.updates, cfg.batch_size)
            index = np.stack([rng.integers(step, size=size, dtype=np.int32) for rng in rngs])
            for k in range(cfg.updates):
                tables.update(replay.ravel().take(index[:, :, k] + replay0).astype(np.int64))
        if step % cfg.score_every == 0:
            history.append(returns(games, tables, coins[every:]))
    return np.array(history)


def defaults(env: str, obs: str) -> dict[str, Any]:
    """The settings of each kind of games, where they differ from Config's."""
    return SETTINGS.get(env, {})


def train_all(cfg: Config) -> None:
    """Train every seed of every learner, and say what they came to."""
    trees = cfg.env == "trees"
    games = Games.random(cfg.games, cfg.layers) if trees else Games.one_stage(TWO_OPTIMA, cfg.games)
    for learner in cfg.learners:
        for seed in range(cfg.seed, cfg.seed + cfg.num_runs):
            run(cfg, games, learner, seed)
    say(table(cfg))


def run(cfg: Config, games: Games, learner: Learner, seed: int) -> None:
    """Train one seed of one learner and write progress.txt, unless that is done."""
    with unfinished([Seed.of(cfg, learner, seed)]) as seeds:
        for kept in seeds:
            began = time.monotonic()
            score = scores(train(cfg, games, learner, seed), games.best)
            write(cfg, games, kept.folder, score, time.monotonic() - began)
            say(f"{learner} s{seed} score {score[-1].mean():.4f} in {time.monotonic() - began:.0f} s")


def write(cfg: Config, games: Games, folder: Path, score: np.ndarray, seconds: float) -> None:
    """games.txt and progress.txt of one seed, whose scores (steps / score_every, G) took these seconds."""
    names = ["Epoch", *(f"{kind}TestEpRet" for kind in ("Average", "Std", "Max", "Min")), "Optimal"]
    names += ["TotalEnvInteracts", "Time"]
    step = np.arange(1, len(score) + 1) * cfg.score_every
    columns = [step // cfg.score_every, score.mean(1), score.std(1), score.max(1), score.min(1)]
    columns += [optimal(score).mean(1), step, seconds * step / cfg.steps]
    write_table(folder / "games.txt", ["Game", "Best", "Score"], [np.arange(cfg.games), games.best, score[-1]])
    write_table(folder / PROGRESS, names, columns)  # last: its rows say that the seed is finished


def scores(total: np.ndarray, best: np.ndarray) -> np.ndarray:
    """1 - (best - total) / |best| for returns (..., G), which is total / best where best (G,) is positive."""
    ratio = total / best
    return np.where(best < 0, 2 - ratio, ratio)


def optimal(score: np.ndarray) -> np.ndarray:
    """Where the greedy joint policy is an optimal one; returns are sums of float32 rewards."""
    return score > 1 - 1e-6


def table(cfg: Config) -> str:
    """The final scores of every learner: over its seeds, and over all games of all seeds."""
    lines = [f"{cfg.exp_name}: greedy return / best return after {cfg.steps} steps, {cfg.games} games a seed"]
    lines += ["learner  seeds     mean  (seeds from       to)   median    worst  optimal"]
    for learner in cfg.learners:
        seeds = [Seed.of(cfg, learner, seed) for seed in range(cfg.seed, cfg.seed + cfg.num_runs)]
        score = np.array([read_table(seed.folder / "games.txt")["Score"] for seed in seeds])
        mean = score.mean(1)
        lines.append(
            f"{learner:<8} {len(score):>5} {score.mean():>8.4f}  ({mean.min():>10.4f} {mean.max():>8.4f}) "
            f"{np.median(score):>8.4f} {score.min():>8.4f} {optimal(score).mean():>8.1%}"
        )
    folder = shlex.quote(str(Path(cfg.data_dir) / cfg.exp_name))
    return "\n".join([*lines, f"curves: python plot.py {folder} -y Performance Optimal"])


if __name__ == "__main__":
    sys.exit(main(Config, defaults, __doc__, "matrix_games", train_all))
