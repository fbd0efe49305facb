"""The numbers of the results' page and of README are those of the runs in results/."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.pages import CODE, FENCE
from helpers.runs import GAME, write_experiment, write_game

from paper import results
from paper.data import Data
from paper.figures import CHEETAH, ROBOTS
from paper.results import BLOCK, BLOCKS, PAGES, PICTURES, fill
from paper.runs import ROOT
from paper.tables import escapes, rows_of, score


@pytest.fixture(scope="module")
def shipped() -> Data:
    return Data(ROOT / "results")


@pytest.mark.parametrize("page", PAGES)
def test_every_number_of_a_page_is_what_the_shipped_runs_say(page, shipped):
    text = (ROOT / page).read_text()
    assert fill(text, shipped) == text, f"{page}: python -m paper.results writes it anew"


def test_the_page_of_results_has_every_block_and_no_number_outside_of_them():
    text = (ROOT / "docs/results.md").read_text()
    of = {page: [name for _, name, _, _ in BLOCK.findall((ROOT / page).read_text())] for page in PAGES}
    assert sorted(name for names in of.values() for name in names) == sorted(BLOCKS)  # each on one page
    assert (of["README.md"], len(of["results/README.md"])) == (["leaves", "short"], 6)
    prose = re.sub(r"\]\([^)]*\)", "]", CODE.sub("", FENCE.sub("", BLOCK.sub("", text))))
    names = r"2x3HalfCheetah|DifferentialGame-3|I2Q|D3G|IDDPG|rule [12]|Form b7|95 %|Table 1|Figure 1[06]"
    prose = re.sub(names, "", prose, flags=re.I)
    assert re.findall(r"\d[\d.,]*", prose) == []


def test_a_number_changed_by_hand_is_found(tmp_path, monkeypatch, capsys):
    for page in PAGES:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    for folder in (ROOT / "results").iterdir():
        if folder.is_dir():
            (tmp_path / "results" / folder.name).symlink_to(folder)
    monkeypatch.setattr(results, "ROOT", tmp_path)
    page = tmp_path / "docs/results.md"
    assert results.main(["--check"]) == 0
    block = BLOCK.search(page.read_text(), page.read_text().index("<!-- results: game"))
    assert block
    page.write_text(page.read_text().replace(block[3], re.sub(r"\d\.\d", "9.9", block[3], count=1)))
    assert results.main(["--check"]) == 1
    assert "docs/results.md: not what results/ says; run python -m paper.results" in capsys.readouterr().err
    assert "9.9" in page.read_text()
    assert results.main([]) == 0
    assert results.main(["--check"]) == 0
    assert {path.name for path in (tmp_path / "docs").glob("*.png")} == {f"{name}.png" for name in PICTURES}


def test_a_block_that_does_not_exist_is_refused(shipped):
    with pytest.raises(ValueError, match="nonsense -->: no such block; known: short, verdicts"):
        fill("<!-- results: nonsense -->\n<!-- end -->", shipped)


def test_new_runs_change_the_verdicts(tmp_path):
    """From 4 seeds of each to 10: six escape, and no seed of IDDPG does."""
    write_game(tmp_path, [90, 91, 92, 93], [28, 29, 30, 31])
    before = BLOCKS["verdicts"](Data(tmp_path))
    for seed in range(4, 10):
        write_experiment(tmp_path, f"i2q_ddpg_{GAME}", seed, [90 + seed] * 55)
        write_experiment(tmp_path, f"iddpg_{GAME}", seed, [20 + seed] * 55)
    after = BLOCKS["verdicts"](Data(tmp_path))
    assert "**Reproduced: 0 of 24 claims.**" in before
    assert "**Reproduced: 2 of 24 claims.**\n    * Figure 6. I2Q learns more than independent DDPG." in after
    assert "I2Q above 35 in 10 of 10 seeds" in after


def test_a_score_names_its_interval_for_what_it_is():
    assert score(np.array([10.0, 20, 30])) == "20.0 (10.0 to 30.0)"
    assert re.fullmatch(r"30\.0 \[\d\d\.\d, \d\d\.\d\]", score(np.array([10.0, 20, 30, 40, 50])))
    assert score(np.array([1234.0])) == "1,234"


def test_a_row_of_a_table_is_compared_with_its_base_at_equal_steps(tmp_path):
    """IDDPG goes on to 300 at twice the steps; what I2Q is compared with is said beside P."""
    for seed in range(3):
        write_experiment(tmp_path, f"i2q_ddpg_{GAME}", seed, [50 + seed] * 20)
        write_experiment(tmp_path, f"iddpg_{GAME}", seed, [10 + seed] * 20 + [300 + seed] * 20)
    base, row = rows_of(Data(tmp_path).lines(GAME, {"IDDPG": "iddpg", "I2Q": "i2q_ddpg"}), "IDDPG")
    assert base == ["IDDPG", "3", "400,000", "301 (300 to 302)", "", ""]
    assert row[:4] == ["I2Q", "3", "200,000", "51.0 (50.0 to 52.0)"]
    assert row[4:] == ["1 [0.50, 1] (IDDPG there: 11.0 (10.0 to 12.0))", "0.10 (the smallest possible)"]


def test_readme_tells_decided_claims_first(tmp_path):
    write_game(tmp_path, [90] * 10, [28] * 10)
    text = BLOCKS["short"](Data(tmp_path))
    assert text.startswith("Of 17 claims of the paper, 2 are reproduced, 0 not reproduced, 15 undecided.")
    rows = [row.split(" | ") for row in text.splitlines() if row.startswith(("| Figure", "| Random"))]
    assert [row[2] for row in rows[:3]] == ["**reproduced**", "**reproduced**", "undecided: not run"]
    assert rows[0][3] == "P(I2Q > IDDPG) = 1 [0.80, 1], 10 seeds each"


def test_runs_stopped_early_are_named_beside_the_table_whatever_seeds_it_has(tmp_path):
    write_game(tmp_path, [90, 28], [29])
    assert "Not counted" not in BLOCKS["game"](Data(tmp_path))
    for seed, final in ((1, 90), (4, 90), (5, 27)):
        write_experiment(tmp_path, "trap_apart", seed, [final] * 24, algorithm="i2q_ddpg")
    told = "3 older runs of I2Q, rule 2, lambda 1, stopped at step 240,000 ([trap_apart](trap.md)); 2 of them escaped"
    assert f"Not counted: {told} by then." in BLOCKS["game"](Data(tmp_path))


def test_escapes_are_counted_and_their_trend_with_lambda_is_tested(tmp_path):
    finals: dict[str, list[float]] = {"i2q_ddpg": [90, 91, 20], "mbpo_baseline": [20, 21, 22], "iddpg": [29]}
    for name, returns in finals.items():
        for seed, final in enumerate(returns):
            write_experiment(tmp_path, f"{name}_{GAME}", seed, [final] * 55)
    lines = {"IDDPG": "iddpg", "I2Q, rule 2, lambda 0": "mbpo_baseline", "I2Q, rule 2, lambda 1": "i2q_ddpg"}
    text = escapes(Data(tmp_path).lines(GAME, lines))
    assert (
        "Seeds that escape: I2Q, rule 2, lambda 1: 2 of 3. No seed of IDDPG (1), I2Q, rule 2, lambda 0 (3) does."
        in text
    )
    test = "p = 0.40 (two-sided permutation test of lambda's ranks, 6 runs, 2 escapes)"  # 6 of 15 deals
    assert f"escape rises with lambda, {test}" in text
    other = {"I2Q, rule 2, lambda 0": "i2q_ddpg", "I2Q, rule 2, lambda 1": "mbpo_baseline"}
    assert f"escape falls with lambda, {test}" in escapes(Data(tmp_path).lines(GAME, other))


def test_readme_says_in_how_many_seeds_i2q_leaves_the_ring(tmp_path):
    for name, finals in (("i2q_ddpg", [90, 34, 36]), ("mbpo_baseline", [20])):
        for seed, final in enumerate(finals):
            write_experiment(tmp_path, f"{name}_{GAME}", seed, [final] * 55)
    told = "0 of 1 with 0, 2 of 3 with 1 (the default) ([what decides](docs/trap.md))."
    assert BLOCKS["leaves"](Data(tmp_path)) == f"Seeds of I2Q that leave the ring, by lambda: {told}"


def test_larger_values_of_lambda_are_held_against_the_default_at_equal_steps(tmp_path):
    for seed, final in enumerate([90, 30]):
        write_experiment(tmp_path, f"i2q_ddpg_{GAME}", seed, [25] * 11 + [final] * 44)
    assert "larger values" not in BLOCKS["game"](Data(tmp_path))
    for seed, final in enumerate([80, 70, 20]):  # shorter: with 25 at its last step twice
        write_experiment(tmp_path, f"i2q_ddpg_{GAME}_lam3", seed, [final] * 11)
    text = BLOCKS["game"](Data(tmp_path))
    assert "Final scores of larger values against the default: P(λ = 3 > λ = 1) = 0.67 " in text
    assert "ahead in 4 of 6 pairs (3 against 2 seeds)" in text


def test_seeds_above_standing_still_are_counted_on_robots_that_can_fall(tmp_path):
    write_experiment(tmp_path, "iddpg_2-4HalfCheetah", 0, [2000] * 20, algorithm="iddpg", env="2-4HalfCheetah")
    assert "Standing still" not in BLOCKS["robots"](Data(tmp_path))
    for seed, final in enumerate([1001, 1000, 999]):
        write_experiment(tmp_path, "iddpg_2x4Ant", seed, [final] * 20, algorithm="iddpg", env="2x4Ant")
    told = "Standing still returns 1,000 on robots that can fall. Seeds that end above it: 1 of 3."
    assert told in BLOCKS["robots"](Data(tmp_path))


def test_the_robots_of_readme_are_those_with_runs_at_equal_steps(tmp_path, monkeypatch):
    config: dict[str, Any] = {"env": CHEETAH}
    for seed in (0, 1):
        write_experiment(tmp_path, f"i2q_ddpg_{CHEETAH}", seed, [1, 2, 3, 4], **config)
        write_experiment(tmp_path, f"ippo_{CHEETAH}", seed, [1, 2], **config)
    seen = []
    monkeypatch.setattr(results, "draw", lambda panels, path, view: seen.append(panels))
    write_game(tmp_path, [90, 91], [28])
    results.pictures(Data(tmp_path), Path(tmp_path))
    game, *_, robots = seen
    assert [len(line.runs) for line in game[0].lines] == [1, 1, 1]
    assert [panel.title for panel in robots] == [ROBOTS[0]]
    assert [line.x.tolist() for line in robots[0].lines] == [[10_000, 20_000]] * 2
