"""The house style of pictures: matplotlib without a display, colours that the colour-blind tell apart."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # matplotlib takes most of a second to import: --help does without it
    from matplotlib.figure import Figure

# Okabe & Ito, colour-blind safe
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
DASHES = ("-", "--", ":", "-.")  # one more round of the colours each
SUFFIXES = (".png", ".pdf", ".svg")
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


@contextlib.contextmanager
def canvas(n_rows: int, n_cols: int, size: tuple[float, float] | None = None) -> Iterator[tuple["Figure", Any]]:
    """A figure and its axes (n_rows, n_cols), to be drawn on inside the context."""
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot: it looks for a display

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size or (3.6 * n_cols, 2.9 * n_rows), layout="constrained")
        yield figure, figure.subplots(n_rows, n_cols, squeeze=False)


def save(figure: "Figure", out: Path) -> None:
    """Writes the figure in the format that the suffix says, the same file for the same data."""
    import matplotlib

    out.parent.mkdir(parents=True, exist_ok=True)
    undated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, dpi=200, metadata=undated.get(out.suffix.lower()))


def colour_of(i: int | str) -> str:
    return i if isinstance(i, str) else COLOURS[i % len(COLOURS)]


def dash_of(i: int | str) -> str:
    return "-" if isinstance(i, str) else DASHES[i // len(COLOURS) % len(DASHES)]
