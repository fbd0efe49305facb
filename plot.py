"""Learning curves from any run folder: Spinning Up's plotter, with intervals made for few seeds.

    python plot.py data/i2q_ddpg_2x3HalfCheetah                          one curve over all seeds of an experiment
    python plot.py data/i2q data/iddpg -l I2Q IDDPG --out curves.pdf     prefixes of folders; one panel a task
    python plot.py data/i2q -y Performance LossQ QVals --count           several columns, every seed on its own
    python plot.py --figure 6 9 | --all-figures | --report               the paper's figures, from results/: figures.py

A run is a folder with config.json and progress.txt. Runs that differ in nothing but the seed (and in what cannot change
learning, see IRRELEVANT) are one curve: by default the interquartile mean with a bootstrap 95 % interval, after Agarwal
et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".

Differences from Spinning Up's plot.py:
* a LOGDIR that exists is taken alone; one that does not is a prefix (there: of any folder with that substring);
* -l names the LOGDIRs as typed, or else the curves, and then says which is which; runs of different settings are never
  pooled under one name;
* --select and --exclude look at the whole path of a run, so that `--exclude _s3` leaves out one seed;
* the picture goes to a file, and several -y are panels of one picture;
* a curve ends where its shortest seed ends: going on without it would look like a jump in learning.
"""

import argparse
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

if TYPE_CHECKING:  # matplotlib takes most of a second to import: --help and users of curve() do without it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# settings in which the seeds of one curve may differ
IRRELEVANT = {"seed", "num_runs", "exp_name", "data_dir", "epochs", "save_freq", "device", "threads", "compile"}
IRRELEVANT |= {"tensorboard", "wandb", "versions"}
PERFORMANCE = ("AverageTestEpRet", "AverageEpRet")  # Spinning Up's alias Performance is the first that a run has
AXIS_LABELS = {
    "Performance": "return",
    "AverageTestEpRet": "test return",
    "AverageEpRet": "training return",
    "TotalEnvInteracts": "environment steps",
    "Time": "wall-clock time (s)",
    "EpLen": "episode length (steps)",
    "TestEpLen": "test episode length (steps)",
    "QVals": "Q values",
}
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)  # Okabe & Ito, colour-blind safe
DASHES = ("-", "--", ":", "-.")  # one more round of the colours each
SUFFIXES = (".png", ".pdf", ".svg")
MAX_POINTS = 500  # of a curve; more cannot be told apart on paper
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.edgecolor": "#555555",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.06,
    "text.parse_math": False,  # a $ in an experiment's name is a $
    "pdf.fonttype": 42,  # text stays text; some publishers refuse type 3
    "svg.hashsalt": "plot.py",  # the same data gives the same file
}


@dataclass(frozen=True, eq=False)
class Run:
    """One seed: its folder, config.json, the columns of progress.txt, the LOGDIR as typed, its experiment's name."""

    path: Path
    config: dict[str, Any]
    columns: dict[str, np.ndarray]
    logdir: str
    name: str

    @property
    def env(self) -> str:
        return str(self.config.get("env", ""))

    @property
    def seed(self) -> str:
        return str(self.config.get("seed", self.path.name))

    @property
    def settings(self) -> dict[str, Any]:
        return {key: value for key, value in self.config.items() if key not in IRRELEVANT}


@dataclass(frozen=True, eq=False)
class Experiment:
    """Runs of one task that differ in the seed alone: one curve. Equal labels have equal colours in all panels."""

    label: str
    env: str
    runs: list[Run]
    colour: int | str = 0  # of COLOURS and DASHES, or a colour of its own


@dataclass(frozen=True, eq=False)
class Line:
    """An experiment as drawn: x (points,), values (runs, points), and what `curve` makes of them, (points,) each."""

    experiment: Experiment
    runs: list[Run]  # those that have the column
    x: np.ndarray
    values: np.ndarray
    mid: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, eq=False)
class Panel:
    """Title, column on the y axis, lines; names of lines without runs yet; marks to compare with, label -> y."""

    title: str
    y: str
    lines: list[Line]
    missing: Sequence[str] = ()
    marks: Mapping[str, float] = field(default_factory=dict)
    label: str = ""  # of the y axis, where the column's own would not say it


# ---------------------------------------------------------------------------------------------------------- statistics


def iqm(values: np.ndarray) -> np.ndarray:
    """Interquartile mean over the runs: (..., runs, points) -> (..., points). Below 4 runs it is the mean.

    Of n runs, the floor(n / 4) lowest and highest are dropped, as in Agarwal et al. 2021.
    """
    n = values.shape[-2]
    return np.sort(values, -2)[..., n // 4 : n - n // 4, :].mean(-2)


ESTIMATES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda values: values.mean(-2),
    "iqm": iqm,
    "median": lambda values: np.median(values, -2),
}


def curve(
    values: np.ndarray,
    est: str = "iqm",
    band: str = "ci",
    rng: np.random.Generator | None = None,
    tasks: Sequence[Any] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mid, low, high of values (runs, points), each (points,). One run has no band: low = mid = high.

    mid is the "mean", "iqm" or "median" over the runs. The band is "sd": mid -+ the sample standard deviation; "iqr":
    the quartiles; "ci": the 2.5 and 97.5 percentiles of mid over 2000 bootstrap resamples of whole runs. Resampling is
    stratified: a run is replaced by runs of its own task, given as tasks (runs,); by default all are of one task, as in
    a panel. Agarwal et al. 2021, section 4.
    """
    mid, n = ESTIMATES[est](values), len(values)
    if n == 1:
        return mid, mid, mid
    if band == "sd":
        sd = values.std(0, ddof=1)
        return mid, mid - sd, mid + sd
    if band == "iqr":
        low, high = np.percentile(values, [25, 75], axis=0)
        return mid, low, high
    rng = rng or np.random.default_rng(0)
    strata = np.zeros(n) if tasks is None else np.unique(np.asarray(tasks), return_inverse=True)[1]
    picks = np.empty((2000, n), int)
    for stratum in np.unique(strata):
        (members,) = np.nonzero(strata == stratum)
        picks[:, members] = rng.choice(members, (len(picks), len(members)))
    low, high = np.empty_like(mid), np.empty_like(mid)
    for start in range(0, len(mid), 50):  # all points at once could take gigabytes
        part = slice(start, start + 50)
        low[part], high[part] = np.percentile(ESTIMATES[est](values[:, part][picks]), [2.5, 97.5], axis=0)
    return mid, low, high


def smooth(y: np.ndarray, k: int) -> np.ndarray:
    """Centred mean over k points; at the edges over those of the k that exist. Spinning Up's; same shape as y."""

    def window_sums(values: np.ndarray) -> np.ndarray:
        return np.convolve(values, np.ones(k))[k // 2 :][: len(y)]  # mode "same" would give k values where y has fewer

    return window_sums(y) / window_sums(np.ones(len(y)))


# ------------------------------------------------------------------------------------------------------------- reading


def note(text: str) -> None:
    print(f"plot.py: {text}", file=sys.stderr)


def load(logdirs: Sequence[str], select: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Run]:
    """The runs below the LOGDIRs whose path holds every string of `select` and none of `exclude`.

    A run that cannot be read or has no row yet is left out with a note. ValueError where no run is left.
    """
    runs: list[Run] = []
    met: set[Path] = set()
    refused: list[Path] = []
    bare: list[str] = []
    for logdir in dict.fromkeys(logdirs):
        walks = [walk for folder in complete(logdir) for walk in os.walk(folder)]
        paths = sorted((Path(root) for root, _, files in walks if "progress.txt" in files), key=_natural)
        if not paths:
            bare.append(logdir)
        for path in paths:
            if path.resolve() in met:
                continue
            met.add(path.resolve())
            if not all(s in str(path) for s in select) or any(s in str(path) for s in exclude):
                refused.append(path)
                continue
            try:
                config, columns = read_config(path / "config.json"), read_progress(path / "progress.txt")
            except ValueError as error:
                note(f"{error}; the run is left out")
                continue
            beside = [run for run in runs if run.path.parent == path.parent and run.config == config]
            if beside and "seed" in config:
                note(f"{path}: a copy of {beside[0].path.name}, no further seed; the run is left out")
                continue
            name = str(config.get("exp_name") or path.parent.name)
            env = re.sub(r"[^0-9A-Za-z-]", "-", str(config.get("env", "")))
            name = name.replace(f"_{env}", "") or name  # the task is the panel's title
            runs.append(Run(path, config, columns, logdir, name))
    if runs:
        for logdir in bare:
            note(f"LOGDIR {logdir!r}: no folder below it has a progress.txt")
        return runs
    if refused:
        rules = [f"--select {s!r}" for s in select] + [f"--exclude {s!r}" for s in exclude]
        raise ValueError(f"{' '.join(rules)} leaves nothing of {_some(refused)}")
    raise ValueError(
        f"no run to draw below {_some(logdirs)}: a run is a folder with config.json and a progress.txt with rows"
    )


def complete(logdir: str) -> list[Path]:
    """The folder itself, or else the folders whose names it begins. ValueError where there are none."""
    path = Path(logdir)
    if path.is_dir():
        return [path]
    if not path.parent.is_dir():
        raise ValueError(f"LOGDIR {logdir!r}: there is no folder {str(path.parent)!r}")
    beside = sorted((p for p in path.parent.iterdir() if p.is_dir()), key=_natural)
    if found := [p for p in beside if p.name.startswith(path.name)]:
        return found
    raise ValueError(f"LOGDIR {logdir!r} is no folder and begins no folder's name; there are: {_some(beside)}")


def read_config(path: Path) -> dict[str, Any]:
    """The settings of a run. ValueError where they cannot be read."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {_reason(error)}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no settings but {str(config)[:40]}")
    return config


def read_progress(path: Path) -> dict[str, np.ndarray]:
    """The columns of a progress.txt; a cell that is no number is NaN. ValueError where there is no row.

    A last line without its newline is still being written and does not count: its last number may be half a number.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    except OSError as error:
        raise ValueError(f"{path}: {_reason(error)}") from error
    header, rows, damaged = lines[0].split("\t") if lines else [], [], []
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if line.strip() and len(cells) == len(header):
            rows.append([_number(cell) for cell in cells])
        elif line.strip():
            damaged.append(f"line {number} has {len(cells)} cells, the header {len(header)}")
    if damaged:
        more = f" ({len(damaged) - 1} more like it)" if len(damaged) > 1 else ""
        note(f"{path}: {damaged[0]}; the line is left out{more}")
    if not rows:
        raise ValueError(f"{path} has no row yet")
    return dict(zip(header, np.array(rows).T))


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts s2 before s10."""
    return [
        (int(piece), "") if piece.isdecimal() else (-1, piece)
        for part in path.parts
        for piece in [*re.split(r"(\d+)", part), ""]  # "" ends a name, so that lam0 comes before lam0.2
    ]


def _some(things: Iterable[Any]) -> str:
    names = [str(thing) for thing in things]
    return (", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")) or "none"


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


# ------------------------------------------------------------------------------------------------------------ grouping


def rename(runs: Sequence[Run], logdirs: Sequence[str], legend: Sequence[str]) -> list[Run]:
    """The runs, named by a legend of one name a LOGDIR, or else one a curve. ValueError where it fits neither."""
    names = list(dict.fromkeys(run.name for run in runs))
    if len(legend) == len(logdirs):
        return [replace(run, name=legend[logdirs.index(run.logdir)]) for run in runs]
    if len(legend) != len(names):
        raise ValueError(f"-l has {len(legend)} names for {len(logdirs)} LOGDIRs, {len(names)} curves: {_some(names)}")
    new = dict(zip(names, legend))
    note("-l: " + ", ".join(f"{old} is {name!r}" for old, name in new.items()))  # a slip here would swap results
    return [replace(run, name=new[run.name]) for run in runs]


def group(runs: Sequence[Run], count: bool = False) -> list[Experiment]:
    """The experiments, in the order of their first runs; with `count` every run is one.

    Where curves of one task would bear one name, what sets them apart is added: settings that differ, or the folder.
    """
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        found.setdefault((run.env, run.name, json.dumps(run.settings, sort_keys=True)), []).append(run)
    for key, members in list(found.items()):
        if len({run.seed for run in members}) < len(members):  # an older copy, say: its seeds are no further seeds
            del found[key]
            for run in members:
                found.setdefault((*key, str(run.path.parent)), []).append(run)

    experiments = []
    for key, members in found.items():
        rivals = [other[0] for k, other in found.items() if k[:2] == key[:2] and k != key]
        label = ", ".join([key[1], *_differences(members[0], rivals)])
        experiments.append(Experiment(label, key[0], members))
    if count:
        alone = len({e.label for e in experiments}) == 1  # then the colours are free to tell the seeds apart
        experiments = [
            Experiment(f"{e.label} s{run.seed}" if alone else e.label, e.env, [run])
            for e in experiments
            for run in e.runs
        ]
    labels = list(dict.fromkeys(e.label for e in experiments))
    return [replace(e, colour=labels.index(e.label)) for e in experiments]


def _differences(run: Run, rivals: Sequence[Run]) -> list[str]:
    """What sets a run apart from runs of the same name, in words for the legend."""
    words = []
    for rival in rivals:
        if run.settings == rival.settings:
            words.append(str(run.path.parent))
        elif run.config.get("algorithm") != rival.config.get("algorithm"):  # other settings follow from it
            words.append(str(run.config.get("algorithm")))
        else:
            words += [f"{key} {v}" for key, v in run.settings.items() if rival.settings.get(key) != v]
    return list(dict.fromkeys(words))


def column(run: Run, name: str) -> str | None:
    """The column of this run that `name` stands for, if it has one."""
    if name == "Performance":
        return next((c for c in PERFORMANCE if np.isfinite(run.columns.get(c, np.nan)).any()), None)
    return name if name in run.columns else None


def series(run: Run, x: str, y: str, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """x (ascending) and y (smoothed over k rows) of the rows in which both are finite; of rows at one x the last."""
    xs, ys = (run.columns.get(column(run, name) or "", np.array([np.nan])) for name in (x, y))
    finite = np.isfinite(xs) & np.isfinite(ys)
    if not finite.any():
        return np.empty(0), np.empty(0)
    xs, last = np.unique(xs[finite][::-1], return_index=True)
    return xs, smooth(ys[finite][::-1][last], k)


def align(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """x (points,) within the range of all series, and y (runs, points), linear between a run's own rows."""
    grid = np.unique(np.concatenate([xs for xs, _ in parts]))
    grid = grid[(grid >= max(xs[0] for xs, _ in parts)) & (grid <= min(xs[-1] for xs, _ in parts))]
    if len(grid) > MAX_POINTS:
        grid = grid[np.linspace(0, len(grid) - 1, MAX_POINTS).round().astype(int)]
    return grid, np.array([np.interp(grid, xs, ys) for xs, ys in parts])


def arrange(
    experiments: Sequence[Experiment],
    x: str = "TotalEnvInteracts",
    ys: Sequence[str] = ("Performance",),
    k: int = 1,
    est: str = "iqm",
    band: str = "ci",
) -> list[Panel]:
    """One panel a column and task, y by y. Notes what is left out or cut; ValueError where nothing is left of a column.

    The same data gives the same intervals: every line has a generator of its own.
    """
    panels = []
    for y in dict.fromkeys(ys):
        lines, notes = [], []
        for e in experiments:
            what = f"{e.label} on {e.env}" if e.env else e.label
            parts = {run: series(run, x, y, k) for run in e.runs}
            runs = [run for run in e.runs if len(parts[run][0])]
            for run in e.runs:
                if run not in runs:
                    notes.append(f"{run.path / 'progress.txt'}: no row has {x} and {y}; the run is left out")
            if not runs:
                continue
            grid, values = align([parts[run] for run in runs])
            if not len(grid):
                notes.append(f"{what}: no {x} is within all {len(runs)} seeds; left out (--count draws each seed)")
                continue
            ends = [parts[run][0][-1] for run in runs]
            if y == ys[0] and max(ends) > min(ends):
                short = runs[int(np.argmin(ends))].path.name
                longer = f"{sum(end > min(ends) for end in ends)} of {len(runs)} seeds reach up to {max(ends):,.10g}"
                notes.append(
                    f"{what}: drawn to {x} {grid[-1]:,.10g}, where {short} ends; {longer} (see them with --count)"
                )
            lines.append(Line(e, runs, grid, values, *curve(values, est, band, np.random.default_rng(0))))
        if not lines:
            run = experiments[0].runs[0]
            file = run.path / "progress.txt"
            raise ValueError(f"-x {x} -y {y}: no run has numbers in both; columns of {file}: {' '.join(run.columns)}")
        for text in notes:
            note(text)
        envs = dict.fromkeys(e.env for e in experiments)
        panels += [Panel(env, y, [line for line in lines if line.experiment.env == env]) for env in envs]
    return panels


# ------------------------------------------------------------------------------------------------------------- drawing


def draw(panels: Sequence[Panel], out: Path, x: str = "TotalEnvInteracts", caption: str = "") -> "Figure":
    """Writes the panels, one legend for all and the caption to `out` (.png, .pdf, .svg), and returns the figure."""
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot: it looks for a display
    from matplotlib.lines import Line2D

    n_ys, n_titles = len({p.y for p in panels}), len({p.title for p in panels})
    if n_ys > 1 and n_titles > 1:
        n_rows, n_cols = n_ys, n_titles
    else:
        n_rows = -(-len(panels) // 4)
        n_cols = -(-len(panels) // n_rows)
    entries = legend_entries([line for panel in panels for line in panel.lines])
    width = 5.4 if len(panels) == 1 else 3.0 * n_cols  # inches, like what follows
    n_abreast = max(1, int(width / max((0.07 * len(label) + 0.4 for label in entries), default=1)))
    n_lines = max(1, -(-len(entries) // n_abreast))
    n_abreast = max(1, -(-len(entries) // n_lines))  # so that lines are equally long
    height = (2.9 if len(panels) == 1 else 2.2 * n_rows) + 0.5 + 0.2 * n_lines

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(n_rows, n_cols, squeeze=False).flat
        for i, ax in enumerate(axes):
            if i >= len(panels):
                ax.remove()
                continue
            draw_panel(ax, panels[i])
            if i < n_cols or n_ys == 1:
                ax.set_title(panels[i].title)
            if i % n_cols == 0 or n_titles == 1:
                ax.set_ylabel(axis_label(panels, panels[i].y))
            if i + n_cols >= len(panels):
                ax.set_xlabel(AXIS_LABELS.get(x, x))
        handles = [Line2D([], [], color=_colour(c), ls=_dash(c), lw=2) for c in entries.values()]
        figure.legend(
            handles, list(entries), loc="outside upper center", ncols=n_abreast, handlelength=1.5, frameon=False
        )
        figure.supxlabel(fill(caption, int(15 * width)), fontsize=7, color="#666666")
    save(figure, out)
    return figure


def save(figure: "Figure", out: Path) -> None:
    """Writes the figure in the format that the suffix says, the same file for the same data."""
    import matplotlib

    out.parent.mkdir(parents=True, exist_ok=True)
    undated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, dpi=200, metadata=undated.get(out.suffix.lower()))


def draw_panel(ax: "Axes", panel: Panel) -> None:
    """Lines and bands of one panel, without title and labels."""
    if not panel.lines:
        text = "not run yet" if panel.missing else "no runs"
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color="#777777")
        ax.set(xticks=[], yticks=[])
        return
    alpha = 0.2 if len(panel.lines) <= 4 else 0.1  # of many bands none would be seen
    for line in panel.lines:
        colour = _colour(line.experiment.colour)
        marker = "o" if len(line.x) <= 12 else ""  # a line of one or two points would hardly show
        width = 1.6 if len(line.runs) > 1 else 1.1
        ax.plot(line.x, line.mid, _dash(line.experiment.colour), color=colour, lw=width, marker=marker, ms=3)
        if len(line.x) > 1:
            ax.fill_between(line.x, line.low, line.high, color=colour, alpha=alpha, lw=0)
        else:
            ax.vlines(line.x, line.low, line.high, color=colour, alpha=0.4, lw=3)
    right, left = max(line.x[-1] for line in panel.lines), min(line.x[0] for line in panel.lines)
    if 0 < left <= 0.5 * right:  # the first row is written after an epoch; show where training began
        left = 0.0
    if left < right:
        ax.set_xlim(left, right + 0.01 * (right - left))
    for label, y in panel.marks.items():
        ax.axhline(y, color="#999999", lw=0.8, ls=(0, (1, 2)), zorder=1)
        at_left = ax.get_yaxis_transform()  # x in shares of the axes, y in returns
        ax.text(0.01, y, label, transform=at_left, va="bottom", size=7, color="#777777")
    if panel.missing:
        text = fill(f"not run yet: {', '.join(panel.missing)}", 40)
        ax.text(0.99, 0.01, text, transform=ax.transAxes, ha="right", va="bottom", size=7, color="#777777")
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.1 * (high - low), high)  # room for the text
    if right >= 10_000:
        ax.xaxis.set_major_formatter(lambda value, _: _short(value))


def fill(text: str, width: int) -> str:
    """The text in lines of this many characters; what is one to the reader, as "λ = 2" or "95 %", is not broken."""
    return textwrap.fill(re.sub(r" (?=[%=])|(?<==) ", "\u00a0", text), width)


def _colour(i: int | str) -> str:
    return i if isinstance(i, str) else COLOURS[i % len(COLOURS)]


def _dash(i: int | str) -> str:
    return "-" if isinstance(i, str) else DASHES[i // len(COLOURS) % len(DASHES)]


def _short(value: float) -> str:
    """250000 -> 250k, 1500000 -> 1.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def axis_label(panels: Sequence[Panel], y: str) -> str:
    """What y stands for, in words, if it stands for the same column in all runs."""
    if label := next((panel.label for panel in panels if panel.y == y), ""):
        return label
    real = {column(run, y) or y for panel in panels if panel.y == y for line in panel.lines for run in line.runs}
    name = real.pop() if len(real) == 1 else y
    return AXIS_LABELS.get(name, name)


def legend_entries(lines: Sequence[Line]) -> dict[str, int | str]:
    """Label with its number of seeds -> colour, in the colours' order; a range where panels differ in it."""
    lines = sorted(lines, key=lambda line: c if isinstance(c := line.experiment.colour, int) else len(COLOURS) ** 2)
    seeds: dict[str, list[int]] = {}
    for line in lines:
        seeds.setdefault(line.experiment.label, []).append(len(line.runs))
    colours = {line.experiment.label: line.experiment.colour for line in lines}
    if all(len(line.runs) == 1 for line in lines):  # the caption says so
        return colours
    entries = {}
    for label, n in seeds.items():
        number = f"{max(n)}" if min(n) == max(n) else f"{min(n)} to {max(n)}"
        entries[f"{label} ({number} seed{'s' if max(n) > 1 else ''})"] = colours[label]
    return entries


def describe(panels: Sequence[Panel], k: int, est: str, band: str) -> str:
    """One line that says what line and band are."""
    sizes = {len(line.runs) for panel in panels for line in panel.lines}
    smoothed = f", smoothed over {k} rows" if k > 1 else ""
    if sizes == {1}:
        return f"Each line is one seed{smoothed}."
    few = " (below 4 seeds: the mean)" if est == "iqm" and sizes & {2, 3} else ""
    middle = {"mean": "Mean", "iqm": "Interquartile mean", "median": "Median"}[est]
    shaded = {"sd": "standard deviation", "iqr": "quartiles", "ci": "bootstrap 95 % interval"}[band]
    return f"{middle} over seeds{few}{smoothed}; shaded: {shaded}."


def table(panels: Sequence[Panel], x: str = "TotalEnvInteracts", est: str = "iqm") -> str:
    """The end of every line: what its seeds came to at the last x that all of them have."""
    text = []
    for y in dict.fromkeys(panel.y for panel in panels):
        lines = [(panel.title, line) for panel in panels if panel.y == y for line in panel.lines]
        if all(len(line.runs) == 1 for _, line in lines):
            rows = [["task", "curve", "seed", x, "value"]]
        else:
            rows = [["task", "curve", "seeds", x, "mean", "IQM", "median", "SD", f"95 % of {est}"]]
        for title, line in lines:
            end = line.values[:, -1:]
            row = [title, line.experiment.label, str(len(end)), f"{line.x[-1]:,.10g}"]
            if len(rows[0]) == 5:
                row[2:3] = [line.runs[0].seed]
                row.append(_cell(end[0, 0]))
            else:
                _, low, high = curve(end, est, "ci", np.random.default_rng(0))
                row += [_cell(estimate(end)[0]) for estimate in (ESTIMATES["mean"], iqm, ESTIMATES["median"])]
                row += [_cell(end.std(ddof=1)), f"{_cell(low[0])} to {_cell(high[0])}"] if len(end) > 1 else ["-", "-"]
            rows.append(row)
        widths = [max(map(len, cells)) for cells in zip(*rows)]
        text.append(f"final {y}:")
        for row in rows:
            cells = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))]
            text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def _cell(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2e}"


# ---------------------------------------------------------------------------------------------------------------- main


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"plot.py: {message} (python plot.py --help explains the flags)\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    description, _, epilog = (__doc__ or "").partition("\n\n")
    layout = argparse.RawDescriptionHelpFormatter
    parser = Parser("plot.py", description=description, epilog=epilog, formatter_class=layout)
    add = parser.add_argument
    add("logdir", nargs="*", metavar="LOGDIR", help="folder with runs somewhere below it, or the beginning of its name")
    add("-l", "--legend", nargs="+", default=[], metavar="NAME", help="one for each LOGDIR, or else for each curve")
    add("-x", "--xaxis", default="TotalEnvInteracts", metavar="COL", help="column of progress.txt [%(default)s]")
    text = "columns of progress.txt; Performance is AverageTestEpRet, or else AverageEpRet [Performance]"
    add("-y", "--value", nargs="+", default=["Performance"], metavar="COL", help=text)
    add("-s", "--smooth", type=int, default=1, metavar="K", help="mean over K rows of each run [%(default)s]")
    add("--count", action="store_true", help="draw every seed on its own")
    add("--select", nargs="+", default=[], metavar="STR", help="only runs whose path holds all of these")
    add("--exclude", nargs="+", default=[], metavar="STR", help="no run whose path holds one of these")
    text = "the line over seeds: mean, interquartile mean (below 4 seeds the mean), median [iqm]"
    add("--est", choices=list(ESTIMATES), help=text)
    text = "the band: standard deviation or quartiles of the seeds, bootstrap 95 %% interval of the line [ci]"
    add("--band", choices=["sd", "iqr", "ci"], help=text)
    add("--out", metavar="FILE", help="the picture: .png, .pdf or .svg [curve.png in the first LOGDIR]")
    add("--figure", nargs="+", metavar="N", help="the paper's figures, from LOGDIRs that hold experiments [results]")
    add("--all-figures", action="store_true", help="all of them; --out is then a folder [data/figures]")
    add("--report", action="store_true", help="one HTML page of all figures, final scores and the paper's claims")
    args = parser.parse_args(argv)
    if args.figure or args.all_figures or args.report:
        return args
    args.est, args.band = args.est or "iqm", args.band or "ci"
    if not args.logdir:
        parser.error("LOGDIR is missing; or give --figure N, --all-figures or --report")
    if args.smooth < 1:
        parser.error(f"--smooth {args.smooth}: is a number of rows, 1 or more")
    if args.out and Path(args.out).suffix.lower() not in SUFFIXES:
        parser.error(f"--out {args.out!r}: the name must end in one of {' '.join(SUFFIXES)}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Draws the picture and prints the table and where the picture is. Exit status: 2 usage, 1 the disk refuses."""
    args = parse(argv)
    if args.figure or args.all_figures or args.report:
        import figures

        return figures.main(args)
    first = Path(args.logdir[0])
    out = Path(args.out) if args.out else (first if first.is_dir() else first.parent) / "curve.png"
    try:
        runs = load(args.logdir, args.select, args.exclude)
        experiments = group(rename(runs, args.logdir, args.legend) if args.legend else runs, args.count)
        panels = arrange(experiments, args.xaxis, args.value, args.smooth, args.est, args.band)
    except (ValueError, OSError) as error:
        note(str(error))
        return 2
    try:
        draw(panels, out, args.xaxis, describe(panels, args.smooth, args.est, args.band))
    except OSError as error:
        note(f"{out} cannot be written: {_reason(error)}; --out FILE puts the picture elsewhere")
        return 1
    print(table(panels, args.xaxis, args.est))
    print(f"picture: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
