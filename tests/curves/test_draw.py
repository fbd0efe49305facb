"""What a picture shows of its lines: all seeds, true values, sensible limits."""

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.runs import write_run

from common.errors import Unwritten
from curves.draw import columns_for, draw
from curves.lines import FIT, Fit, Panel, arrange, group
from curves.panel import THIN, markers_for
from curves.read import load
from curves.style import SUFFIXES, View
from curves.table import cut, describe


def panel_of(root: Path) -> Panel:
    (panel,) = arrange(group(load([str(root)])))
    return panel


def axes_of(root: Path, **view):
    (axes,) = draw([panel_of(root)], root / "x.png", View(**view)).axes
    return axes


@pytest.mark.parametrize("seeds, thin", [(1, 0), (2, 2), (8, 8), (9, 0)])
def test_every_seed_of_up_to_eight_is_drawn_thin(tmp_path, seeds, thin):
    for seed in range(seeds):
        write_run(tmp_path, "a", seed, [seed, 10 * seed])
    lines = [line for line in axes_of(tmp_path).lines if line.get_linewidth() == THIN]
    ends = [np.asarray(line.get_ydata())[-1] for line in lines]
    assert sorted(ends) == [10.0 * seed for seed in range(thin)]


def test_line_band_and_legend_are_those_of_the_curves(tmp_path):
    for name, ends in (("a", (0, 3, 6, 6, 100)), ("b", (200, 200, 201, 202, 210))):
        for seed, end in enumerate(ends):
            write_run(tmp_path, name, seed, [end, end])
    (panel,) = arrange(group(load([str(tmp_path)])), fit=Fit(band="iqr"))
    figure = draw([panel], tmp_path / "x.png")
    axes, legend = figure.axes[0], figure.legends[0]
    thick = [line for line in axes.lines if line.get_linewidth() > THIN]
    assert [np.asarray(line.get_ydata()).tolist() for line in thick] == [[5, 5], [201, 201]]  # of the middle three
    bands = [band.get_paths()[0].get_extents() for band in axes.collections]
    assert [(band.y0, band.y1) for band in bands] == [(3, 6), (200, 202)]
    colours = {text.get_text(): handle.get_color() for text, handle in zip(legend.get_texts(), legend.get_lines())}
    assert colours == {"a": thick[0].get_color(), "b": thick[1].get_color()}
    assert colours["a"] != colours["b"]


@pytest.mark.parametrize(
    "band, words", [("sd", "standard deviation"), ("iqr", "quartiles"), ("ci", "range of the seeds")]
)
def test_the_caption_names_the_band(tmp_path, band, words):
    for seed in range(2):
        write_run(tmp_path, "a", seed, [1, 2])
    assert f"shaded: {words};" in describe([panel_of(tmp_path)], Fit(band=band))


def test_the_caption_says_what_thin_lines_are(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "a", seed, [1, 2])
    assert describe([panel_of(tmp_path)], FIT) == "Mean over 2 seeds; shaded: range of the seeds; thin: every seed."


def test_the_caption_tells_of_a_mean_where_some_lines_have_few_seeds(tmp_path):
    for seed in range(4):
        write_run(tmp_path, "a", seed, [1, 2])
    for seed in range(2):
        write_run(tmp_path, "b", seed, [1, 2])
    assert describe([panel_of(tmp_path)], FIT).startswith("Interquartile mean over seeds (below 4 seeds: the mean); ")


def test_one_long_line_does_not_squeeze_the_others_and_the_caption_says_that_it_goes_on(tmp_path):
    for name, rows in (("a", 10), ("b", 10), ("c", 40)):
        write_run(tmp_path, name, 0, list(range(rows)))
    axes = axes_of(tmp_path)
    assert axes.get_xlim() == (0, 10_100)
    assert axes.get_ylim()[1] < 12  # what is not shown takes no room
    assert cut([panel_of(tmp_path)], View()) == " Not shown: c goes on to 40,000."
    assert axes_of(tmp_path, xlim=(0, 40_000)).get_xlim() == (0, 40_000)
    assert cut([panel_of(tmp_path)], View(xlim=(0, 20_000))) == ""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_picture_that_a_full_disk_refuses_leaves_the_older_one(tmp_path, suffix):
    """It was cut off, and the older one gone."""
    write_run(tmp_path, "a", 0, list(range(40)))
    panel, out, before = panel_of(tmp_path), tmp_path / f"x{suffix}", resource.getrlimit(resource.RLIMIT_FSIZE)
    out.write_text("an older one")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(Unwritten, match=f"^{out} cannot be written: file too large; --out puts it elsewhere$"):
            draw([panel], out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert out.read_text() == "an older one" and not list(tmp_path.glob(".*"))


def test_of_two_lines_the_longer_one_is_drawn_to_its_end(tmp_path):
    for name, rows in (("a", 10), ("b", 40)):
        write_run(tmp_path, name, 0, list(range(rows)))
    assert axes_of(tmp_path).get_xlim()[1] >= 40_000


def test_lines_that_coincide_have_markers_at_points_of_their_own(tmp_path):
    for name, value in (("a", 8.0), ("b", 8.0), ("c", 0.0)):
        write_run(tmp_path, name, 0, [value] * 40)
    marked: list[Any] = [line for line in axes_of(tmp_path).lines if line.get_marker() not in ("", "None")]
    assert len({line.get_marker() for line in marked}) == 3
    assert len({line.get_markevery()[0] for line in marked}) == 3


def test_lines_that_only_cross_have_none(tmp_path):
    write_run(tmp_path, "a", 0, list(range(40)))
    write_run(tmp_path, "b", 0, list(range(40, 0, -1)))
    assert markers_for([panel_of(tmp_path)]) == {}


def test_seeds_of_one_label_are_not_told_apart(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "a", seed, [8.0] * 40)
    write_run(tmp_path, "b", 0, [0.0] * 40)
    assert markers_for(arrange(group(load([str(tmp_path)]), count=True))) == {}


def test_a_long_mark_leaves_the_panels_their_width(tmp_path):
    """Three abreast, each with the same mark beside it: the axes keep most of the picture."""
    write_run(tmp_path, "a", 0, [1, 2, 3])
    panels = [replace(panel_of(tmp_path), marks={"SMAX's script against itself": 2.0}, title=t) for t in "abc"]
    picture = draw(panels, tmp_path / "x.png")
    assert sum(axes.get_position().width for axes in picture.axes) > 0.55  # 0.41 with the mark on one line


def test_the_room_for_what_is_not_run_has_no_ticks(tmp_path):
    """A share of games won below 0 would be nonsense."""
    write_run(tmp_path, "a", 0, [0.0, 0.2, 0.6])
    (axes,) = draw([replace(panel_of(tmp_path), missing=["D3G"])], tmp_path / "x.png").axes
    assert axes.get_ylim()[0] < -0.05
    assert min(axes.get_yticks()) == 0


def test_axes_are_logarithmic_where_asked_for_also_with_negative_values(tmp_path):
    write_run(tmp_path, "a", 0, [1, 10, 100])
    assert axes_of(tmp_path, log=("x", "y")).get_yscale() == "log"
    assert axes_of(tmp_path, log=("x",)).get_xscale() == "log"
    assert axes_of(tmp_path, log=("x",)).get_xlim()[0] == 1000  # no 0
    write_run(tmp_path, "b", 0, [-5, 10, 100])
    assert axes_of(tmp_path, log=("y",)).get_yscale() == "symlog"


def test_ticks_of_logarithmic_axes_are_plain_numbers(tmp_path):
    write_run(tmp_path, "a", 0, [1, 10, 100])
    labels = [label.get_text() for label in axes_of(tmp_path, log=("y",)).get_yticklabels()]
    assert {"1", "10", "100"} <= set(labels)


def test_limits_title_and_size_are_those_asked_for(tmp_path):
    write_run(tmp_path, "a", 0, [1, 2, 3])
    figure = draw([panel_of(tmp_path)], tmp_path / "x.png", View(ylim=(-1, 9), title="Three rows", size=(7, 3)))
    assert figure.axes[0].get_ylim() == (-1, 9)
    assert figure.legends[0].get_title().get_text() == "Three rows"
    assert np.array_equal(figure.get_size_inches(), (7, 3))


@pytest.mark.parametrize(
    "labels, width, abreast",
    [
        (["released rule + whole state"] * 8, 5.4, 2),
        (["I2Q"] * 3, 5.4, 3),
        (["I2Q"] * 9, 3.0, 5),
        (["x" * 200], 3.0, 1),
    ],
)
def test_a_legend_has_as_many_columns_as_there_is_room_for(labels, width, abreast):
    assert columns_for(labels, width) == abreast
