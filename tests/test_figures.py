"""figures.py and report.py: the table of runs against the programs, statistics against a hand's, pictures and page."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import pytest

import plot
from common import runs
from paper import figures, report

GAME, CHEETAH = figures.GAME, figures.CHEETAH
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def write_run(root: Path, name: str, seed: int, returns: Sequence[float], steps: int = 10_000, **config) -> Path:
    """A run folder as the algorithms leave it, with one row a test return, `steps` apart."""
    folder = root / name / f"{name}_s{seed}"
    folder.mkdir(parents=True)
    settings = {"algorithm": name.split("_D")[0], "env": GAME, "exp_name": name, "seed": seed, "epochs": len(returns)}
    (folder / "config.json").write_text(json.dumps({**settings, **config}))
    rows = ["AverageTestEpRet\tTotalEnvInteracts\tTime"]
    rows += [f"{value}\t{i * steps}\t{i}" for i, value in enumerate(returns, 1)]
    (folder / "progress.txt").write_text("\n".join(rows) + "\n")
    return folder


def write_game(root: Path, i2q: list[float], iddpg: list[float], n_rows: int = 55) -> None:
    """I2Q and IDDPG on the differential game: a seed for each return, which it has at every test."""
    for name, finals in (("i2q_ddpg", i2q), ("iddpg", iddpg)):
        for seed, final in enumerate(finals):
            write_run(root, f"{name}_{GAME}", seed, [final] * n_rows)


@pytest.fixture(autouse=True)
def fresh():
    figures.find.cache_clear()


def verdict(root: Path, claim: figures.Claim, number: str = "6") -> tuple[str, str]:
    figure = figures.FIGURES[number]
    return figures.judge(claim, figures.panels(figure, [str(root)])[0])


ABOVE = figures.Claim("I2Q learns more", "I2Q", "IDDPG")


# -------------------------------------------------------------------------------------------------------- table of runs


@pytest.mark.parametrize(
    "line, task, name",
    [
        ("iddpg", GAME, "iddpg_DifferentialGame-3"),
        ("i2q_ddpg --lam 0.2", GAME, "i2q_ddpg_DifferentialGame-3_lam0.2"),
        ("i2q_ddpg --lam 0.01", CHEETAH, "i2q_ddpg_2x3HalfCheetah"),
        ("i2q_ddpg --rule 1", GAME, "i2q_ddpg_DifferentialGame-3_rule1"),
        ("i2q_ddpg --rule 1", CHEETAH, "i2q_ddpg_2x3HalfCheetah"),
        ("iddpg --obs full", "2|4Walker", "iddpg_2-4Walker_full"),
        ("matrix_games --learners iql", "trees", "matrix_games_trees_iql"),
    ],
)
def test_an_experiment_is_named_by_what_departs_from_the_tasks_settings(line, task, name):
    assert figures.experiment(line, task) == name


@pytest.mark.parametrize("scale", figures.SCALES)
def test_one_name_never_stands_for_two_settings(scale):
    found: dict[str, tuple] = {}
    for figure in figures.FIGURES.values():
        for row in figures.rows(scale, [figure.number]):
            assert found.setdefault(row.experiment, (row.program, row.task, row.flags)) == (
                row.program,
                row.task,
                row.flags,
            )


@pytest.mark.parametrize("scale", ["smoke", "paper"])
def test_every_row_is_a_command_that_its_program_takes(scale, monkeypatch):
    for row in figures.rows(scale):
        module = importlib.import_module(row.start[-1].removesuffix(".py"))
        games = getattr(module, "SETTINGS", {})
        defaults = getattr(module, "defaults", lambda env, obs, games=games: games.get(env, {}))
        monkeypatch.setattr(sys, "argv", [f"{row.program}.py", "--env", row.task, *row.flags])
        config = vars(runs.parse(module.Config, defaults, "", row.program))
        assert figures.matches({key: v for key, v in config.items() if key != "learners"}, row.flags), row


def test_names_are_shortened_by_the_programs_own_defaults():
    for key, task, obs in (("differential", GAME, "own"), ("mujoco", CHEETAH, "own"), ("full", CHEETAH, "full")):
        for name, value in figures.DEFAULTS[key].items():
            module = importlib.import_module("i2q_expectile" if name == "form" else "i2q_ddpg")
            own = module.defaults(task, obs).get(name, getattr(module.Config, name, None))
            assert float(own) == float(value) if name == "lam" else own == value


def test_short_runs_are_the_beginning_of_the_papers():
    short, paper = ({row.experiment: row for row in figures.rows(scale)} for scale in ("short", "paper"))
    for name, row in paper.items():
        flags = [dict(zip(r.flags[::2], r.flags[1::2])) for r in (short[name], row)]
        assert int(flags[0].pop("--epochs", 1)) <= int(flags[1].pop("--epochs", 1))
        assert flags[0] == flags[1]


def test_a_run_of_two_figures_has_as_many_seeds_as_either_wants():
    assert {row.seeds for row in figures.rows("short", ["12"]) if row.experiment == f"i2q_ddpg_{GAME}"} == {3}
    (row,) = [row for row in figures.rows("short", ["12", "6"]) if row.experiment == f"i2q_ddpg_{GAME}"]
    assert (row.seeds, row.figures) == (4, ["12", "6"])


@pytest.mark.parametrize(
    "config, same",
    [({"lam": 0.2}, True), ({"lam": 1.0}, False), ({}, True), ({"lam": 0.2, "epochs": 5}, True)],
)
def test_a_run_is_of_a_row_where_their_settings_agree_but_for_epochs(config, same):
    assert figures.matches(config, ["--lam", "0.2", "--epochs", "55"]) == same


# -------------------------------------------------------------------------------------------------------------- figures


def drawn(tmp_path: Path, number: str = "6") -> tuple[list[plot.Panel], str]:
    figure = figures.FIGURES[number]
    found = figures.panels(figure, [str(tmp_path)])
    return found, figures.describe(figure, found, "iqm", "ci")


def test_a_figure_has_a_panel_a_task_and_a_line_a_learner(tmp_path):
    write_game(tmp_path, [90, 91], [29, 30])
    (panel,), _ = drawn(tmp_path)
    assert [line.experiment.label for line in panel.lines] == ["I2Q", "IDDPG"]
    assert panel.missing == ["D3G", "λ = 0"]
    assert [p.title for p in drawn(tmp_path, "14")[0]] == ["6x1Walker", "8x1Ant"]


def test_the_caption_says_how_many_seeds_and_steps_are_behind_each_curve(tmp_path):
    write_game(tmp_path, [90, 91, 92, 93], [29] * 3, n_rows=20)
    assert "I2Q: 4 seeds to step 200,000; IDDPG: 3 seeds to step 200,000." in drawn(tmp_path)[1]
    assert drawn(tmp_path, "8")[1].endswith("Not run yet.")


def test_a_panel_without_runs_says_so_and_names_what_else_is_missing(tmp_path):
    write_game(tmp_path, [90], [29])
    for number, text in (("6", "not run yet: D3G, λ\u00a0=\u00a00"), ("8", "not run yet")):
        (ax,) = plot.draw(drawn(tmp_path, number)[0], tmp_path / "x.png").axes
        assert text in [t.get_text() for t in ax.texts]


def test_a_learner_has_one_colour_in_all_figures(tmp_path):
    for task, number in ((GAME, "6"), ("StochasticDifferentialGame-3", "8")):
        write_run(tmp_path, f"iddpg_{task}", 0, [1, 2], env=task)
        assert [line.experiment.colour for line in drawn(tmp_path, number)[0][0].lines] == [1]


def test_of_one_seed_in_two_folders_the_longer_run_counts(tmp_path):
    write_run(tmp_path / "results", f"iddpg_{GAME}", 0, [1, 1, 1])
    write_run(tmp_path / "data", f"iddpg_{GAME}", 0, [2, 2])
    write_run(tmp_path / "data", f"iddpg_{GAME}", 1, [2, 2, 2])
    found = figures.find((str(tmp_path / "data"), str(tmp_path / "results")), f"iddpg_{GAME}")
    assert sorted((run.seed, run.path.parents[1].name) for run in found) == [("0", "results"), ("1", "data")]


def test_runs_of_other_settings_are_never_pooled_and_are_named(tmp_path, capsys):
    for seed in range(3):
        write_run(tmp_path / "a", f"iddpg_{GAME}", seed, [1, 2, 3], gamma=0.99)
    write_run(tmp_path / "b", f"iddpg_{GAME}", 3, [1, 2], gamma=0.5)
    assert len(figures.find((str(tmp_path / "a"), str(tmp_path / "b")), f"iddpg_{GAME}")) == 3
    assert f"iddpg_{GAME}: 1 runs of other settings are left out" in capsys.readouterr().err


def test_an_experiment_is_not_taken_for_another_whose_name_it_begins(tmp_path):
    write_run(tmp_path, f"i2q_ddpg_{GAME}_lam0.2", 0, [1, 2])
    assert figures.find((str(tmp_path),), f"i2q_ddpg_{GAME}") == []


def test_the_command_writes_png_and_pdf(tmp_path, capsys):
    write_game(tmp_path / "runs", [90, 91], [29, 30], n_rows=3)
    assert plot.main([str(tmp_path / "runs"), "--figure", "6", "7", "--out", str(tmp_path / "out")]) == 0
    assert {p.name: p.read_bytes()[:4] for p in (tmp_path / "out").iterdir()} == {
        f"figure_{n}{suffix}": magic for n in "67" for suffix, magic in ((".png", b"\x89PNG"), (".pdf", b"%PDF"))
    }
    assert "figure_7.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--figure", "6", "--out", "six.png"], "--out 'six.png': a figure is written as .png and .pdf"),
        (["--figure", "10"], "--figure 10: no such figure; known: 5 6 7 8"),
        (["{}/x", "--report"], "{}/x': no such folder"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_2(tmp_path, capsys, argv, message):
    assert plot.main([arg.format(tmp_path) for arg in argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message.format(tmp_path) in line


def test_figure_5_draws_what_ideal_values_left_and_the_distance(tmp_path):
    write_game(tmp_path, [90, 91], [29, 30], n_rows=2)
    for seed in (0, 1):
        path = tmp_path / f"i2q_ddpg_{GAME}" / f"i2q_ddpg_{GAME}_s{seed}" / "ideal_values.txt"
        path.write_text("TotalEnvInteracts\tQVals\tIdealQVals\n10000\t5\t9\n20000\t8\t10\n")
    i2q, iddpg, distance = drawn(tmp_path, "5")[0]
    assert [(line.experiment.label, line.mid.tolist()) for line in i2q.lines] == [("I2Q", [5, 8]), ("ideal", [9, 10])]
    assert [(line.experiment.label, line.mid.tolist()) for line in distance.lines] == [("I2Q", [4, 2])]
    assert (iddpg.lines, iddpg.missing, distance.missing) == ([], ["IDDPG"], ["IDDPG"])


# --------------------------------------------------------------------------------------------------------------- claims


def test_a_final_score_is_the_mean_over_the_last_tenth_of_the_steps(tmp_path):
    write_run(tmp_path, f"iddpg_{GAME}", 0, [0] * 18 + [10, 20])
    (line,) = drawn(tmp_path)[0][0].lines
    assert figures.scores(line).tolist() == [15]
    assert figures.scores(line, end=190_000).tolist() == [5]  # of rows 18 and 19


def test_improvement_is_the_share_of_pairs_with_ties_counted_half():
    assert figures.improvement(np.array([1.0, 3]), np.array([1.0, 2]))[0] == 0.625  # wins 1, 1, 0 and a tie
    assert figures.improvement(np.array([5.0, 6]), np.array([1.0, 2])) == (1, 1, 1)
    mid, low, high = figures.improvement(np.array([0.0, 4, 5, 9]), np.array([1.0, 3, 6, 8]))
    assert low < mid == 0.5 < high


def test_p_value_is_the_share_of_deals_at_least_as_good():
    high, low = np.array([4.0, 5, 6]), np.array([1.0, 2, 3])
    assert figures.p_value(high, low) == 1 / 20  # of 6 over 3 deals, this one
    assert figures.p_value(low, high) == 1.0
    assert figures.p_value(np.array([1.0, 1]), np.array([1.0, 1])) == 1.0


def test_p_value_of_many_seeds_is_estimated_well():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.9, 1, 12), rng.normal(0, 1, 12)
    exact = figures.p_value(x[:8], y[:8])  # 12,870 deals
    both = np.concatenate([x[:8], y[:8]])
    ranks = both.argsort().argsort()
    deals = np.random.default_rng(1).permuted(np.tile(np.arange(16), (20_000, 1)), axis=1)[:, :8]
    assert exact == pytest.approx((ranks[deals].sum(1) >= ranks[:8].sum()).mean(), abs=0.01)
    assert 0 < figures.p_value(x, y) < 0.2


@pytest.mark.parametrize(
    "i2q, iddpg, n_rows, answer",
    [
        ([90, 91, 92], [29, 30, 31], 55, "yes"),
        ([29, 30, 31], [90, 91, 92], 55, "no"),
        ([90, 28, 92], [29, 30, 31], 55, "not enough data"),  # not clear
        ([90, 91], [29, 30, 31, 32, 33, 34], 55, "not enough data"),  # two seeds
        ([90, 91, 92], [29, 30, 31], 16, "not enough data"),  # 160,000 of 550,000 steps
    ],
)
def test_the_answer_follows_the_rule(tmp_path, i2q, iddpg, n_rows, answer):
    write_game(tmp_path, i2q, iddpg, n_rows)
    assert verdict(tmp_path, ABOVE)[0] == answer


@pytest.mark.parametrize("i2q, answer", [([90] * 4, "yes"), ([29] * 4, "no"), ([90, 29, 90, 29], "not enough data")])
def test_a_claim_against_a_number_asks_for_the_interval(tmp_path, i2q, answer):
    write_game(tmp_path, i2q, [])
    assert verdict(tmp_path, figures.Claim("I2Q leaves the trap", "I2Q", 35.0))[0] == answer
    other = {"yes": "no", "no": "yes", "not enough data": "not enough data"}[answer]
    assert verdict(tmp_path, figures.Claim("I2Q stays in the trap", 35.0, "I2Q"))[0] == other


def test_a_claim_without_runs_says_what_was_not_run(tmp_path):
    write_game(tmp_path, [90] * 4, [])
    assert verdict(tmp_path, ABOVE) == ("not enough data", "not run yet: IDDPG")


def test_every_claim_is_about_lines_and_tasks_of_its_figure():
    for figure in figures.FIGURES.values():
        for claim in figure.claims:
            assert {claim.better, claim.worse} - {7.0, 35.0} <= set(figure.lines)
            assert set(claim.tasks) <= set(figure.tasks)


# --------------------------------------------------------------------------------------------------------------- report


@pytest.fixture
def page(tmp_path) -> Path:
    write_game(tmp_path / "runs", [90, 91, 92, 93], [29, 30, 31, 32])
    films = tmp_path / "runs" / "films"
    films.mkdir()
    plot.draw(figures.panels(figures.FIGURES["6"], [str(tmp_path / "runs")]), films / "I2Q_on_the_game.png")
    return report.write([str(tmp_path / "runs")], tmp_path)


def test_the_report_has_every_figure_claim_score_and_film_in_one_file(page):
    text = page.read_text()
    for figure in figures.FIGURES.values():
        assert f'id="figure-{figure.number}"' in text
        for claim in figure.claims:
            assert escape(claim.text) in text
    assert text.count("data:image/svg+xml;base64,") == len(figures.FIGURES)
    assert '<span class="yes">yes</span>' in text
    assert "P(I2Q &gt; IDDPG) 1.00 [1.00, 1.00], p = 0.014, 4 against 4 seeds, at step 550,000" in text
    assert "i2q_ddpg.py --env DifferentialGame-3 --epochs 55" in text
    assert "data:image/png;base64," in text and "I2Q on the game" in text
    assert not re.search(r"https?:|(src|href)=\"(?!data:|#)", text)
    anchors = set(re.findall(r'href="#([^"]+)"', text))
    assert anchors <= set(re.findall(r'id="([^"]+)"', text))


def test_what_sees_the_whole_state_is_compared_with_a_baseline_that_does_and_is_dashed(tmp_path):
    for name, obs, final in (("iddpg", "own", 10), ("iddpg", "full", 30), ("i2q_ddpg", "full", 20)):
        experiment = f"{name}_{CHEETAH}" + "_full" * (obs == "full")
        for seed in range(3):
            write_run(tmp_path, experiment, seed, [final] * 3, env=CHEETAH, obs=obs, algorithm=name, rule="released")
    (panel,) = figures.panels(figures.FIGURES["observations"], [str(tmp_path)])
    own, whole = (line.experiment for line in panel.lines if line.experiment.label.startswith("IDDPG"))
    assert plot._colour(own.colour) == plot._colour(whole.colour)
    assert (plot._dash(own.colour), plot._dash(whole.colour)) == ("-", "--")
    text = report.write([str(tmp_path)], tmp_path).read_text()
    (row,) = re.findall(r"<tr>[^\n]*?i2q_ddpg_2x3HalfCheetah_full</code>.*?</tr>", text[text.index('id="scores"') :])
    assert "0.00 [0.00, 0.00]" in row


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: apt-get install chromium")
@pytest.mark.parametrize("width", [1200, 420])
def test_a_browser_shows_all_of_the_report_without_an_error(page, tmp_path, width):
    """A copy of the page is given a script that reports what the browser made of it."""
    probe = """<script>addEventListener("load", () => document.documentElement.setAttribute("data-probe",
      JSON.stringify({ images: [...document.images].map(i => i.naturalWidth),
      wider: document.documentElement.scrollWidth - innerWidth, figures: document.querySelectorAll("h2").length,
      blocked: window.blocked || 0, quirks: document.compatMode})))
      addEventListener("securitypolicyviolation", () => window.blocked = 1)</script>"""
    text = page.read_text().replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    (tmp_path / "probe.html").write_text(text.replace("</body>", probe + "</body>"))
    command = [CHROMIUM or "", "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tmp_path / 'probe.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'data-probe="([^"]+)"', done.stdout)
    assert found, done.stderr[-1000:]
    seen = json.loads(found[1].replace("&quot;", '"'))
    assert len(seen["images"]) == len(figures.FIGURES) + 1 and min(seen["images"]) > 100
    assert seen["figures"] == len(figures.FIGURES) + 3
    assert (seen["wider"] <= 0, seen["blocked"], seen["quirks"]) == (True, 0, "CSS1Compat")
