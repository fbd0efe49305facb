"""Learning curves from any run folder: Spinning Up's plotter, with intervals made for few seeds.

    python plot.py data/i2q_ddpg_2x3HalfCheetah                          one curve over all seeds of an experiment
    python plot.py data/i2q data/iddpg -l I2Q IDDPG --out curves.pdf     prefixes of folders; one panel a task
    python plot.py data/i2q -y Performance LossQ QVals --count           several columns, every seed on its own
    python plot.py data/mine results/iddpg_2x4Ant --against iddpg        also who ends higher, at equal steps
    python plot.py --figure 6 9 | --all-figures | --report               the paper's figures, from results/

A run is a folder with config.json and progress.txt. Runs that differ in nothing but the seed (and in what cannot change
learning, such as where they ran) are one curve: by default the interquartile mean with a bootstrap 95 % interval, after
Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".

Differences from Spinning Up's plot.py:
* a LOGDIR that exists is taken alone; one that does not is a prefix (there: of any folder with that substring);
* -l names the LOGDIRs as typed, or else the curves, and then says which is which; runs of different settings are never
  pooled under one name;
* --select and --exclude look at the whole path of a run, so that `--exclude _s3` leaves out one seed (and not s31);
* the picture goes to a file, and several -y are panels of one picture;
* a curve ends where its shortest seed ends: going on without it would look like a jump in learning.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.console import say
from common.errors import UsageError
from common.estimates import ESTIMATES
from common.parser import Parser, number
from common.program import status
from curves import draw, lines, read, table
from curves.style import SUFFIXES, View
from paper import panels, report, tables
from paper.figures import FIGURES
from paper.runs import ROOT


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("plot.py", __doc__)
    add = parser.add_argument
    add("logdir", nargs="*", metavar="LOGDIR", help="folder with runs somewhere below it, or the beginning of its name")
    add("-l", "--legend", nargs="+", default=[], metavar="NAME", help="one for each LOGDIR, or else for each curve")
    add("-x", "--xaxis", default="TotalEnvInteracts", metavar="COL", help="column of progress.txt [%(default)s]")
    text = "columns of progress.txt; Performance is AverageTestEpRet, or else AverageEpRet [Performance]"
    add("-y", "--value", nargs="+", default=["Performance"], metavar="COL", help=text)
    add("-s", "--smooth", type=number(1), default=1, metavar="K", help="mean over K rows of each run [%(default)s]")
    add("-c", "--count", action="store_true", help="draw every seed on its own")
    add("--select", nargs="+", default=[], metavar="STR", help="only runs whose path holds all of these")
    add("--exclude", nargs="+", default=[], metavar="STR", help="no run whose path holds one of these")
    text = "the line over seeds: mean, interquartile mean (below 4 seeds the mean), median [iqm]"
    add("--est", choices=list(ESTIMATES), help=text)
    text = "the band: standard deviation or quartiles of the seeds, bootstrap 95 %% interval of the line [ci]"
    add("--band", choices=["sd", "iqr", "ci"], help=text)
    text = "also print final scores at equal steps, and the chance that a seed ends above one of this curve"
    add("--against", default="", metavar="CURVE", help=text)
    text = "logarithmic axes: x, y or both; where values are 0 or less, logarithmic in both directions from 0"
    add("--log", nargs="+", choices=["x", "y"], default=[], metavar="AXIS", help=text)
    add("--xlim", nargs=2, type=float, metavar=("LOW", "HIGH"), help="what the x axes show")
    add("--ylim", nargs=2, type=float, metavar=("LOW", "HIGH"), help="what the y axes show")
    add("--title", default="", help="above the picture")
    add("--size", nargs=2, type=number(1, 100, float), metavar=("W", "H"), help="of the picture, in inches")
    add("--out", metavar="FILE", help="the picture: .png, .pdf or .svg [curve.png in the first LOGDIR]")
    add("--figure", nargs="+", metavar="N", help="the paper's figures, from LOGDIRs that hold experiments [results]")
    add("--all-figures", action="store_true", help="all of them; --out is then a folder [data/figures]")
    add("--report", action="store_true", help="one HTML page of all figures, final scores and the paper's claims")
    args = parser.parse_args(argv)
    args.paper = bool(args.figure or args.all_figures or args.report)
    if not args.logdir and not args.paper:
        parser.error("LOGDIR is missing; or give --figure N, --all-figures or --report")
    picture = args.out and Path(args.out).suffix.lower() in SUFFIXES
    if args.against and args.count:
        parser.error("--against compares curves over seeds, and --count draws every seed; leave one of them out")
    if args.against and args.paper:
        parser.error("--against is for the curves of LOGDIRs; --report compares those of the figures")
    if args.out and args.paper and picture:
        parser.error(f"--out {args.out!r}: a figure is written as .png and .pdf, give a folder")
    if args.out and not args.paper and not picture:
        parser.error(f"--out {args.out!r}: the name must end in one of {' '.join(SUFFIXES)}")
    for name in ("xlim", "ylim"):
        if (limits := getattr(args, name)) and not limits[0] < limits[1]:
            parser.error(f"--{name} {limits[0]:g} {limits[1]:g}: the first number must be below the second")
    args.out = Path(args.out or ("data/figures" if args.paper else beside(args.logdir[0])))
    return args


def beside(logdir: str) -> Path:
    """Where a picture goes that nobody named a place for."""
    return (Path(logdir) if Path(logdir).is_dir() else Path(logdir).parent) / "curve.png"


def curves(args: argparse.Namespace) -> None:
    """Draws the curves of the LOGDIRs, and prints where they end and where the picture is."""
    fit = lines.Fit(args.xaxis, args.smooth, args.est or "iqm", args.band or "ci")
    runs = read.load(args.logdir, args.select, args.exclude)
    experiments = lines.group(read.rename(runs, args.logdir, args.legend) if args.legend else runs, args.count)
    found = lines.arrange(experiments, args.value, fit)
    compared = against(found, args.against, fit.x) if args.against else ""
    view = View(fit.x, args.xlim, args.ylim, tuple(args.log), args.title, "", args.size)
    draw.draw(found, args.out, replace(view, caption=table.describe(found, fit) + table.cut(found, view)))
    say(table.table(found, fit))
    if compared:
        say(compared)
    say(f"picture: {args.out}")


def against(found: Sequence[lines.Panel], base: str, x: str) -> str:
    """Final scores up to the x that both have reached, P(ends above the curve `base`), and p: a row a curve.

    As docs/results.md has them: the mean over the last tenth of the steps, not smoothed. UsageError where no panel has
    that curve.
    """
    rows = []
    for panel in found:
        curves = {line.experiment.label: line for line in panel.lines}
        if base in curves:
            rows += [[panel.title, panel.y, *row] for row in tables.rows_of(curves, base)]
    if not rows:
        labels = dict.fromkeys(line.experiment.label for panel in found for line in panel.lines)
        raise UsageError(f"--against {base!r}: no such curve; there are: {', '.join(labels)}")
    unit = "steps" if x == "TotalEnvInteracts" else x
    head = ["task", "column", "curve", "seeds", unit, "final score", *tables.against(base)]
    return "\n".join([f"final scores at equal {unit}:", *table.aligned([head, *rows], "lllrrrrr")])


def figures(args: argparse.Namespace) -> None:
    """Draws the paper's figures from the experiments in the LOGDIRs, and writes the report."""
    folders = args.logdir or [str(ROOT / "results")]
    numbers = list(FIGURES) if args.all_figures else args.figure or []
    if unknown := [number for number in numbers if number not in FIGURES]:
        known = f"known: {' '.join(FIGURES)} (LOGDIRs go before it)"
        raise UsageError(f"--figure {' '.join(unknown)}: no such figure; {known}")
    if bare := [folder for folder in folders if not Path(folder).is_dir()]:
        raise UsageError(f"LOGDIR {bare[0]!r}: no such folder; a folder that holds experiments is asked for")
    runs = panels.Runs(folders, args.est or "", args.band or "")
    for name in numbers:
        panels.draw_figure(FIGURES[name], runs, args.out)
        say(f"figure {name}: {args.out / f'figure_{name}.png'} and .pdf")
    if args.report:
        say(f"report: {report.write(runs, args.out)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 drawn, 1 the disk refuses, 2 usage, 130 Ctrl-C."""
    args = parse(argv)
    return status("plot.py", lambda: figures(args) if args.paper else curves(args))


if __name__ == "__main__":
    sys.exit(main())
