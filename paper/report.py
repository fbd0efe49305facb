"""One self-contained HTML page: every figure, final scores, the paper's claims and what our runs say, settings, films.

`python plot.py --report` writes it. Nothing is loaded from elsewhere, and the page's own policy forbids it to.
"""

import base64
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from curves import style
from curves.draw import draw
from curves.estimate import FEW, curve
from curves.lines import Line, Panel
from paper.claims import RULES, Answer, judge
from paper.compare import improvement, interval, scores
from paper.figures import FIGURES, WHOLE, Figure
from paper.html import page, table
from paper.panels import Runs, caption, panels
from paper.runs import rows
from paper.words import bounds

FILMS = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif", ".png": "image/png"}
NAMES = {"trees": "Random games", "qplex": "QPLEX page", "qplex-sizes": "QPLEX sizes", "learners": "All learners"}
NAMES |= {"observations": "Observations", "batches": "Batches"}
BADGES = {"reproduced": "yes", "not reproduced": "no", "undecided": "open"}  # verdict -> class of its badge
BASELINES = ("IDDPG", "IQL")  # scores are compared with the first that the task has


def write(runs: Runs, out: Path) -> Path:
    """Writes <out>/report.html, and returns its path. OSError where that fails."""
    drawn = {figure: panels(figure, runs) for figure in FIGURES.values()}
    links = [
        ("claims", "Claims"),
        *((f"figure-{n}", name_of(f)) for n, f in FIGURES.items()),
        ("scores", "Final scores"),
    ]
    films = sorted(path for folder in runs.folders for path in folder.glob("films/*") if path.suffix.lower() in FILMS)
    links += [("films", "Films")] if films else []
    parts = ["<h1>I2Q: figures, scores and claims</h1>", _intro(drawn)]
    parts.append("<nav>" + " ".join(f'<a href="#{anchor}">{escape(text)}</a>' for anchor, text in links) + "</nav>")
    parts.append(_claims(judge(drawn)))
    with tempfile.TemporaryDirectory() as folder:
        for figure, figure_panels in drawn.items():
            picture = Path(folder) / "figure.svg"
            if any(panel.lines for panel in figure_panels):
                draw(figure_panels, picture)
            parts.append(_section(figure, figure_panels, picture, caption(figure, figure_panels, runs.fit(figure))))
    parts.append(_scores(drawn))
    if films:
        parts.append(_films(films))
    path = out / "report.html"
    style.write(path, page("I2Q: figures, scores and claims", parts).encode())
    return path


def name_of(figure: Figure) -> str:
    return f"Figure {figure.number}" if figure.number.isdigit() else NAMES[figure.number]


def _intro(drawn: dict[Figure, list[Panel]]) -> str:
    lines = [line for figure_panels in drawn.values() for panel in figure_panels for line in panel.lines]
    runs = {run.path: run for line in lines for run in line.runs}
    here, all_rows = {path.parent.name for path in runs}, rows("paper")
    made = {item for run in runs.values() for item in run.config.get("versions", {}).items()}
    versions = sorted(f"{name} {version}" for name, version in made if not name.endswith(".py"))
    steps = sum(float(np.nanmax(run.columns["TotalEnvInteracts"])) for run in runs.values())
    text = (
        f"The figures of Jiang &amp; Lu, <i>I2Q: A Fully Decentralized Q-Learning Algorithm</i> (NeurIPS 2022), as our "
        f"runs draw them: {len(runs)} seeds of {len(here)} experiments, {steps / 1e6:.1f} million environment steps. "
        f"{len({row.experiment for row in all_rows} - here)} of the table's {len(all_rows)} experiments are not run "
        f"yet; <code>./run_all.sh</code> trains them."
    )
    return f'<p>{text}</p><p class="small">{escape(", ".join(versions))}</p>'


def _claims(answers: Sequence[Answer]) -> str:
    """A row a claim with its verdict, and below it a row for the tasks of equal evidence, as those not run."""
    lines: list[list[str]] = []
    for answer in answers:
        figure = answer.figure
        name = f'<a href="#figure-{figure.number}">{escape(name_of(figure))}</a>'
        badge = f'<span class="{BADGES[answer.verdict]}">{answer.verdict}</span> {escape(answer.needs)}'
        lines.append([name, escape(answer.claim.text), badge, escape(answer.evidence)])
        tasks: dict[str, list[str]] = {}
        for task, evidence in answer.tasks.items():
            tasks.setdefault(evidence, []).append(task)
        for evidence, titles in tasks.items():
            which = f'<span class="small">{escape(", ".join(titles))}</span>'
            lines.append([name, escape(answer.claim.text), which, escape(evidence)])
    head = ["figure", "the paper's claim", "our verdict", "what this rests on"]
    rules = "".join(f"<li>{escape(rule)}</li>" for rule in RULES)
    note = f"<p>The paper's own text was not at hand; its claims are inferred from its appendix.</p><ul>{rules}</ul>"
    title = '<h2 id="claims">What the paper claims, and what our runs say</h2>'
    return f"{title}{_summary(answers)}{note}{table(head, lines, groups=2)}"


def _summary(answers: Sequence[Answer]) -> str:
    """How many claims have which verdict."""
    counts = [f"{sum(a.verdict == verdict for a in answers)} {verdict}" for verdict in BADGES]
    return f"<p><b>Of {len(answers)} claims: {', '.join(counts)}.</b></p>"


def _scores(drawn: dict[Figure, list[Panel]]) -> str:
    """One row an experiment, task by task; each experiment once, under the label of its first figure."""
    tasks: dict[str, dict[str, Line]] = {}
    for figure_panels in drawn.values():
        for panel in figure_panels:
            if panel.y == "Performance":
                for line in panel.lines:
                    tasks.setdefault(panel.title, {}).setdefault(line.runs[0].path.parent.name, line)
    lines = []
    for title, experiments in tasks.items():
        labelled = {line.experiment.label: line for line in experiments.values()}
        for name, line in experiments.items():
            view = WHOLE if line.experiment.label.endswith(WHOLE) else ""
            base = next((labelled[name + view] for name in BASELINES if name + view in labelled), line)
            end = min(base.x[-1], line.x[-1])
            own = scores(line, end)
            mid, low, high = (float(v[0]) for v in curve(own[:, None]))
            spread = f"[{_cell(low)}, {_cell(high)}]" if len(own) > 1 else "-"
            better = "-"
            if base is not line:
                groups = [(own, scores(base, end))]
                better = bounds(improvement(groups), *interval(groups))
            sd = _cell(own.std(ddof=1)) if len(own) > 1 else "-"
            learner = f"{escape(line.experiment.label)}<br><code>{escape(name)}</code>"
            cells = [str(len(own)), f"{end:,.0f}", _cell(mid), spread, _cell(own.mean()), sd, better]
            lines.append([escape(title), learner, *cells])
    head = ["task", "learner", "seeds", "steps", "IQM", "interval", "mean", "SD", "P(improvement)"]
    note = (
        "<p>A score is a seed's mean test return over the last tenth of the steps that this learner and the baseline "
        "that sees as much (IDDPG; in matrix games IQL) have both made; IQM: the interquartile mean over seeds "
        f"(below 4 seeds the mean) with its bootstrap 95 % interval, below {FEW} seeds with their range; "
        "P(improvement): the probability that a seed of this learner ends above one of the baseline, after Agarwal et "
        "al. 2021, with Newcombe's interval. These comparisons are many and their intervals are not corrected for "
        "it.</p>"
    )
    text = note + table(head, lines, range(2, 9)) if lines else "<p>No run yet.</p>"
    return f'<h2 id="scores">Final scores</h2>{text}'


def _cell(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.4f}"


def _section(figure: Figure, figure_panels: list[Panel], picture: Path, text: str) -> str:
    image = ""
    if any(panel.lines for panel in figure_panels):
        image = f'<img alt="{escape(text)}" src="{_inline(picture, "image/svg+xml")}">'
    title = escape(f"{name_of(figure)}: {figure.title}" if figure.number.isdigit() else figure.title)
    lines = []
    named = {row.experiment: row for row in [*rows("lab"), *rows("paper", [figure.number])]}
    for panel in figure_panels[: len(figure.tasks)]:
        for line in panel.lines:
            run = line.runs[0]
            row = named[run.path.parent.name]
            command = " ".join(["python", *row.start, "--env", row.task, *row.flags])
            settings = ", ".join(f"{k} {v}" for k, v in run.settings.items() if k not in ("algorithm", "env"))
            cells = [line.experiment.label, f"<code>{escape(command)}</code>", escape(settings)]
            lines.append([escape(panel.title), *cells])
    head = ["task", "learner", "command", "settings used"]
    details = f"<details><summary>Settings behind it</summary>{table(head, lines)}</details>" if lines else ""
    return (
        f'<h2 id="figure-{figure.number}">{title}</h2>\n'
        f"<figure>{image}<figcaption>{escape(text)}</figcaption></figure>{details}"
    )


def _films(films: Sequence[Path]) -> str:
    items = []
    for path in films:
        kind = FILMS[path.suffix.lower()]
        data, name = _inline(path, kind), escape(path.stem.replace("_", " "))
        film = f'<img alt="{name}" src="{data}">'
        if kind.startswith("video"):
            film = f'<video controls loop muted src="{data}"></video>'
        items.append(f"<figure>{film}<figcaption>{name}</figcaption></figure>")
    return f'<h2 id="films">Films of trained policies</h2><div class="films">{"".join(items)}</div>'


def _inline(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
