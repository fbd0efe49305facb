"""The house style of pictures: matplotlib without a display, colours that the colour-blind tell apart."""

import contextlib
import io
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.disk import write_atomic
from common.errors import Unwritten
from common.layout import reason

if TYPE_CHECKING:  # matplotlib takes most of a second to import: --help does without it
    from matplotlib.axes import Axes
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
    "axes.axisbelow": True,  # the grid lies beneath the bands
    "grid.color": "#e6e6e6",
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.06,
    "text.parse_math": False,  # a $ in an experiment's name is a $
    "pdf.fonttype": 42,  # text stays text; some publishers refuse type 3
    "svg.hashsalt": "plot.py",  # the same data gives the same file
}


@dataclass(frozen=True)
class View:
    """What a picture shows and how: column and limits of its axes, which of them are logarithmic, words, inches."""

    x: str = "TotalEnvInteracts"
    xlim: tuple[float, float] | None = None
    ylim: tuple[float, float] | None = None
    log: tuple[str, ...] = ()  # "x", "y"
    title: str = ""
    caption: str = ""
    size: tuple[float, float] | None = None  # width and height


@contextlib.contextmanager
def canvas(n_rows: int, n_cols: int, size: tuple[float, float] | None = None) -> Iterator[tuple["Figure", Any]]:
    """A figure and its axes (n_rows, n_cols), to be drawn on inside the context."""
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot: it looks for a display

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size or (3.6 * n_cols, 2.9 * n_rows), layout="constrained")
        yield figure, figure.subplots(n_rows, n_cols, squeeze=False)


def save(figure: "Figure", out: Path) -> None:
    """Writes the figure in the format that the suffix says, the same file for the same data. Raises as `write`."""
    import matplotlib

    kind, drawn = out.suffix.lower(), io.BytesIO()
    undated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    with matplotlib.rc_context(STYLE):
        figure.savefig(drawn, format=kind[1:], dpi=200, metadata=undated.get(kind))
    write(out, drawn.getvalue())


def write(out: Path, data: bytes) -> None:
    """Puts it into a folder, which is made. Raises Unwritten where it cannot be; what was there before then stays."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, data)
    except OSError as error:
        raise Unwritten(f"{out} cannot be written: {reason(error)}; --out puts it elsewhere") from None


def log_ticks(ax: "Axes") -> None:
    """Plain numbers at the powers of ten of logarithmic axes: formulas are not set, see text.parse_math."""
    for axis in (ax.xaxis, ax.yaxis):
        if axis.get_scale() != "linear":
            axis.set_major_formatter(lambda value, _: short(value))
            axis.set_minor_formatter("")


def colour_of(i: int | str) -> str:
    return i if isinstance(i, str) else COLOURS[i % len(COLOURS)]


def dash_of(i: int | str) -> str:
    return "-" if isinstance(i, str) else DASHES[i // len(COLOURS) % len(DASHES)]


def fill(text: str, width: int) -> str:
    """The text in lines of this many characters; what is one to the reader, as "λ = 2" or "95 %", is not broken."""
    return textwrap.fill(re.sub(r" (?=[%=])|(?<==) ", "\u00a0", text), width)


def short(value: float) -> str:
    """250000 -> 250k, 1500000 -> 1.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"
