"""The paper's figures: the runs behind each, how they are drawn, and what the paper claims of them.

FIGURES is the one table: `run_all.sh` trains what it names, `plot.py --figure` draws it, `plot.py --report` judges it.
A figure has a panel for each task and a line for each learner; a line is a program with its flags, and its runs are in
<folder>/<experiment>/<experiment>_s<seed>, where `experiment` makes the name of program, task and flags.

Paper: Jiang & Lu 2022, "I2Q: A Fully Decentralized Q-Learning Algorithm", NeurIPS. Its sections 1-5 were not at hand:
the numbers of the figures, their tasks on MuJoCo and the claims are inferred from its appendix and the released code.
"""

from dataclasses import dataclass

GAME, CHEETAH = "DifferentialGame-3", "2x3HalfCheetah"
ROBOTS = (CHEETAH, "2-4HalfCheetah", "2x3Walker", "3x2Walker", "2x4Ant", "3x1Hopper")
WHOLE = " + whole state"  # what a line's label ends with where others in its panel see less
SHARED = " + shared batches"  # where others in its panel draw a batch for each agent
I2Q, IDDPG, D3G, MBPO = "i2q_ddpg", "iddpg", "d3g", "mbpo_baseline"  # the last is I2Q with lambda = 0
DRQN, IQL, DISCRETE_D3G = "smac.i2q_drqn", "smac.iql", "smac.d3g_discrete"
MANY = ("6x1Walker", "8x1Ant")
FALLING = ("2x3Walker", "3x2Walker", "2x4Ant", "3x1Hopper", *MANY)  # robots whose episode ends by a fall
STANDING = 1000.0  # what these are paid for an episode without a fall or a move: 1 a step
MAPS = ("smax:8m", "smax:3s_vs_4z", "smax:2s3z", "smax:5m_vs_6m", "smax:3m")  # the paper's four, and an easy one
SMAX = "--n_envs 8 --update_every 4"  # a quarter of PyMARL's updates, which take most of the time


@dataclass(frozen=True)
class Claim:
    """What the paper claims of a figure: `better` ends above `worse` on `tasks`, as a mean. One may be a number."""

    text: str
    better: str | float
    worse: str | float
    tasks: tuple[str, ...] = ()  # none given: all tasks of the figure


@dataclass(frozen=True, eq=False)
class Figure:
    """A panel a task and column of progress.txt, a line a learner: label -> program and flags."""

    number: str
    title: str
    tasks: tuple[str, ...]
    lines: dict[str, str]
    seeds: tuple[int, int, int]  # at the scales smoke, short, paper
    claims: tuple[Claim, ...] = ()
    ys: tuple[str, ...] = ("Performance",)
    est: tuple[str, str] = ("iqm", "ci")  # line and band, where a command asks for no other
    references: bool = False  # whether REFERENCES are drawn too, where they have been run


FIGURES = {
    figure.number: figure
    for figure in (
        Figure(
            "5",
            "Learned against ideal values",
            (GAME,),
            {"I2Q": I2Q, "IDDPG": IDDPG},
            (2, 4, 8),
            (Claim("I2Q's values end nearer to the ideal ones than independent DDPG's", "IDDPG", "I2Q"),),
            ys=("QVals",),
        ),
        Figure(
            "6",
            "Differential game",
            (GAME,),
            {"I2Q": I2Q, "IDDPG": IDDPG, "D3G": D3G, "λ = 0": MBPO},
            (2, 4, 8),
            (
                Claim("I2Q learns more than independent DDPG", "I2Q", "IDDPG"),
                Claim("I2Q learns more than D3G", "I2Q", "D3G"),
                Claim("I2Q escapes the local optimum (30), which no agent can escape on its own", "I2Q", 35.0),
            ),
            references=True,
        ),
        Figure(
            "7",
            "The weight λ of value in the forward model",
            (GAME,),
            {"λ = 0": MBPO} | {f"λ = {lam}": f"{I2Q} --lam {lam}" for lam in ("0.2", "0.5", "1", "2", "3", "4", "10")},
            (2, 3, 8),
            (Claim("Drawing the model to valuable successors helps: λ = 1 ends above λ = 0", "λ = 1", "λ = 0"),),
        ),
        Figure(
            "8",
            "Stochastic differential game (our own definition)",
            ("StochasticDifferentialGame-3",),
            {"I2Q": I2Q, "IDDPG": IDDPG, "D3G": D3G, "λ = 0": MBPO},
            (2, 4, 8),
            (
                Claim("I2Q learns more than independent DDPG in stochastic games too", "I2Q", "IDDPG"),
                Claim("I2Q learns more than D3G in stochastic games too", "I2Q", "D3G"),
            ),
        ),
        Figure(
            "9",
            "Multi-Agent MuJoCo, own observations",
            ROBOTS,
            {"I2Q": I2Q, "IDDPG": IDDPG, "D3G": D3G},
            (2, 3, 4),
            (
                Claim("I2Q learns more than independent DDPG", "I2Q", "IDDPG"),
                Claim("I2Q learns more than D3G", "I2Q", "D3G"),
            ),
            references=True,
        ),
        Figure(
            "learners",
            "Every learner here on one robot",
            (CHEETAH,),
            {
                "I2Q": I2Q,
                "IDDPG": IDDPG,
                "D3G": D3G,
                "λ = 0": MBPO,
                "IPPO": "ippo",
                "expectile I2Q": "i2q_expectile --form b7",
                "expectile I2Q (released)": "i2q_expectile --form released",
            },
            (2, 3, 4),
        ),
        Figure(
            "observations",
            "What an agent sees: its own joints (solid) or the whole state (dashed); λ = 0: rule 1",
            (CHEETAH,),
            {
                label + whole: line + flags
                for whole, flags in (("", ""), (WHOLE, " --obs full"))
                for label, line in (
                    ("rule 1", f"{I2Q} --rule 1"),
                    ("released rule", f"{I2Q} --rule released"),
                    ("λ = 0", f"{MBPO} --rule 1"),
                    ("IDDPG", IDDPG),
                )
            },
            (2, 3, 4),
        ),
        Figure(
            "batches",
            "One draw of replay indices for each agent (solid) or for all of them (dashed)",
            (GAME,),
            {
                label + shared: line + flags
                for shared, flags in (("", ""), (SHARED, " --batches shared"))
                for label, line in (
                    ("rule 2, λ = 1", I2Q),
                    ("rule 2, λ = 2", f"{I2Q} --lam 2"),
                    ("rule 1, λ = 1", f"{I2Q} --rule 1"),
                )
            },
            (2, 3, 8),
        ),
        Figure(
            "10",
            "Micromanagement on SMAX, which is not StarCraft: games won",
            MAPS,
            {"I2Q": DRQN, "IQL": IQL, "D3G": DISCRETE_D3G},
            (2, 3, 4),
            ys=("TestWinRate",),
        ),
        Figure(
            "11",
            "Multi-Agent MuJoCo: what λ > 0 is worth",
            (CHEETAH, "2x3Walker", "2x4Ant", "3x1Hopper"),
            {"I2Q": I2Q, "λ = 0": MBPO, "IDDPG": IDDPG},
            (2, 3, 4),
            (Claim("I2Q (λ = 0.01) learns more than with λ = 0", "I2Q", "λ = 0"),),
        ),
        Figure(
            "12",
            "Rule 1, rule 2, and the rule of the released code",
            (GAME, CHEETAH),
            {
                "rule 2": f"{I2Q} --rule 2",
                "rule 1": f"{I2Q} --rule 1",
                "released": f"{I2Q} --rule released",
                "IDDPG": IDDPG,
            },
            (2, 3, 4),
            (
                Claim("Rule 2 suits differential games: it ends above rule 1", "rule 2", "rule 1", (GAME,)),
                Claim("Rule 1 suits MuJoCo: it ends above rule 2", "rule 1", "rule 2", (CHEETAH,)),
            ),
        ),
        Figure(
            "13",
            "Multi-Agent MuJoCo: an on-policy learner at equal steps",
            (CHEETAH, "2x3Walker", "2x4Ant", "3x1Hopper"),
            {"I2Q": I2Q, "IDDPG": IDDPG, "IPPO": "ippo"},
            (2, 3, 4),
            (Claim("I2Q learns more than IPPO from as many steps", "I2Q", "IPPO"),),
        ),
        Figure(
            "14",
            "Multi-Agent MuJoCo, full observation",
            MANY,
            {
                "I2Q": f"{I2Q} --obs full",
                "IDDPG": f"{IDDPG} --obs full",
                "expectile I2Q": "i2q_expectile --form b7 --obs full",
                "expectile I2Q (released)": "i2q_expectile --form released --obs full",
            },
            (2, 3, 4),
            (
                Claim("I2Q learns more than independent DDPG with six and eight agents", "I2Q", "IDDPG"),
                Claim(
                    "The released expectile form learns more than independent DDPG there",
                    "expectile I2Q (released)",
                    "IDDPG",
                ),
            ),
        ),
        Figure(
            "15",
            "One-stage game with two optimal joint actions",
            ("two-optima",),
            {
                "I2Q + η": "matrix_games --learners i2q_eta",
                "I2Q": "matrix_games --learners i2q",
                "IQL": "matrix_games --learners iql",
            },
            (2, 4, 8),
            (Claim("With a shared order of states I2Q finds the optimum, IQL does not", "I2Q + η", "IQL"),),
            ys=("Performance", "Optimal"),
        ),
        Figure(
            "16",
            "Micromanagement on SMAX without a forward model: games won",
            MAPS,
            {"I2Q without f": f"{DRQN} --form no_f", "I2Q": DRQN, "IQL": IQL},
            (2, 3, 4),
            ys=("TestWinRate",),
        ),
        Figure(
            "trees",
            "100 random matrix games of five stages",
            ("trees",),
            {"I2Q": "matrix_games --learners i2q", "IQL": "matrix_games --learners iql"},
            (2, 4, 8),
            (Claim("I2Q ends nearer to the optimum than independent Q-learning", "I2Q", "IQL"),),
            ys=("Performance", "Optimal"),
        ),
        Figure(
            "qplex",
            "One-step games that few factorised values can represent",
            ("qplex-game", "qtran-game"),
            {
                "I2Q": "value_factorization --learners i2q",
                "IQL": "value_factorization --learners iql",
                "VDN": "value_factorization --learners vdn",
                "QMIX": "value_factorization --learners qmix",
                "Qatten": "value_factorization --learners qatten",
                "QTRAN": "value_factorization --learners qtran",
                "QPLEX": "value_factorization --learners qplex-3L10H",
                "OW-QMIX": "value_factorization --learners ow-qmix",
                "CW-QMIX": "value_factorization --learners cw-qmix",
            },
            (6, 6, 6),
            (
                *(
                    Claim(f"{name} finds the best joint action, 8", name, 7.0)
                    for name in ("QPLEX", "QTRAN", "OW-QMIX", "CW-QMIX")
                ),
                *(Claim(f"{name} stays at a local optimum", 7.0, name) for name in ("VDN", "QMIX", "Qatten")),
            ),
            est=("median", "iqr"),
        ),
        Figure(
            "qplex-sizes",
            "QPLEX with attention of other sizes (aLbH: a layers, b heads)",
            ("qplex-game",),
            {
                f"QPLEX {size}": f"value_factorization --learners qplex-{size}"
                for size in ("1L4H", "2L4H", "2L10H", "3L10H")
            },
            (6, 6, 6),
            est=("median", "iqr"),
        ),
    )
}

REFERENCES = {"MADDPG (centralised, not in the paper)": "examples.maddpg"}  # what decentralisation costs

PAPER_TABLE_1 = {  # games won on SMAC
    "I2Q": {"smax:8m": 0.89, "smax:3s_vs_4z": 0.68, "smax:2s3z": 0.85, "smax:5m_vs_6m": 0.42},
    "D3G": dict.fromkeys(MAPS[:4], 0.0),
}
SCRIPT = {"smax:8m": 0.56, "smax:3s_vs_4z": 0.0, "smax:2s3z": 0.54, "smax:5m_vs_6m": 0.01, "smax:3m": 0.51}

MARKS = {  # returns to compare with: docs/environments.md, and the games' pay-offs
    GAME: {"optimum": 93.7, "trap": 29.7},
    "StochasticDifferentialGame-3": {"to the centre": 81.0},
    "qplex-game": {"optimum": 8.0},
    "qtran-game": {"optimum": 8.0},
    **{task: {"standing still": STANDING} for task in FALLING},
    **{task: {"SMAX's script against itself": won} for task, won in SCRIPT.items()},  # games won: docs/smac.md
}
TITLES = {task: task.removeprefix("smax:") for task in MAPS}
TITLES |= {"trees": "random games", "two-optima": "one-stage game", "2-4HalfCheetah": "2|4HalfCheetah"}
LABELS = ["I2Q", "IDDPG", "D3G", "λ = 0", "IPPO", "expectile I2Q", "expectile I2Q (released)"]  # -> colour
LABELS += ["VDN", "QMIX", "Qatten", "QTRAN", "QPLEX", "OW-QMIX", "CW-QMIX"]
LABELS_LIKE = {"IQL": "IDDPG", "I2Q + η": "D3G", "rule 2": "I2Q", "rule 1": "D3G"}
LABELS_LIKE |= dict.fromkeys(("released", "released rule", "I2Q, released rule", "I2Q without f"), "expectile I2Q")
LABELS_LIKE |= {"rule 2, λ = 1": "I2Q", "rule 2, λ = 2": "IDDPG", "rule 1, λ = 1": "D3G"}
LABELS_LIKE |= {"QPLEX 1L4H": "I2Q", "QPLEX 2L4H": "IDDPG", "QPLEX 2L10H": "D3G", "QPLEX 3L10H": "λ = 0"}
RAMP = ("#440154", "#472f7d", "#39568c", "#2a788e", "#1f988b", "#35b779", "#75d054", "#bddf26")  # viridis, for λ
