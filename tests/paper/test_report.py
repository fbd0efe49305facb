"""The report: one page that a browser shows whole, without anything from elsewhere."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path
from typing import Any

import pytest
from helpers.runs import write_experiment, write_game

from curves.draw import draw
from curves.style import colour_of, dash_of
from paper import report
from paper.figures import CHEETAH, FIGURES
from paper.panels import Runs, panels

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def page(tmp_path) -> Path:
    write_game(tmp_path / "runs", [90, 91, 92, 93], [29, 30, 31, 32])
    films = tmp_path / "runs" / "films"
    films.mkdir()
    draw(panels(FIGURES["6"], Runs([tmp_path / "runs"])), films / "I2Q_on_the_game.png")
    return report.write(Runs([tmp_path / "runs"]), tmp_path)


def test_the_report_has_every_figure_claim_score_and_film_in_one_file(page):
    text = page.read_text()
    for figure in FIGURES.values():
        assert f'id="figure-{figure.number}"' in text
        for claim in figure.claims:
            assert escape(claim.text) in text
    assert text.count("data:image/svg+xml;base64,") == 4  # of the figures that have runs: 6, 7, 12 and "batches"
    assert "Figure 8. Stochastic differential game (our own definition). Not run yet: StochasticDiff" in text
    assert '<span class="open">undecided</span>' in text
    assert "P(I2Q &gt; IDDPG) = 1 [0.58, 1], ahead in 16 of 16 pairs (4 against 4 seeds), p = 0.029" in text
    assert "1.00 [1.00, 1.00]" not in text
    assert "0 reproduced, 0 not reproduced," in text
    assert "i2q_ddpg.py --env DifferentialGame-3 --epochs 55" in text
    assert "data:image/png;base64," in text and "I2Q on the game" in text
    assert not re.search(r"https?:|(src|href)=\"(?!data:|#)", text)
    anchors = set(re.findall(r'href="#([^"]+)"', text))
    assert anchors <= set(re.findall(r'id="([^"]+)"', text))


def test_what_sees_the_whole_state_is_compared_with_a_baseline_that_does_and_is_dashed(tmp_path):
    for name, obs, final in (("iddpg", "own", 10), ("iddpg", "full", 30), ("i2q_ddpg", "full", 20)):
        experiment = f"{name}_{CHEETAH}" + "_full" * (obs == "full")
        for seed in range(3):
            config: dict[str, Any] = {"env": CHEETAH, "obs": obs, "algorithm": name}
            config |= {"rule": "released"} if name == "i2q_ddpg" else {}
            write_experiment(tmp_path, experiment, seed, [final] * 3, **config)
    (panel,) = panels(FIGURES["observations"], Runs([tmp_path]))
    own, whole = (line.experiment for line in panel.lines if line.experiment.label.startswith("IDDPG"))
    assert colour_of(own.colour) == colour_of(whole.colour)
    assert (dash_of(own.colour), dash_of(whole.colour)) == ("-", "--")
    text = report.write(Runs([tmp_path]), tmp_path).read_text()
    (row,) = re.findall(
        r"<tr[^>]*>[^\n]*?i2q_ddpg_2x3HalfCheetah_full</code>.*?</tr>", text[text.index('id="scores"') :]
    )
    assert "0 [0, 0.50]" in row and "0.00 [0.00, 0.00]" not in row


def test_the_command_of_a_reference_is_in_the_settings_of_its_figure(tmp_path):
    write_experiment(tmp_path, "maddpg_DifferentialGame-3", 0, [1, 2], algorithm="maddpg")
    text = report.write(Runs([tmp_path]), tmp_path).read_text()
    assert "-m examples.maddpg --env DifferentialGame-3" in text


def test_scores_are_compared_at_equal_steps(tmp_path):
    """IDDPG ends at step 30,000, where IPPO has 3; what IPPO comes to later is not in the table."""
    for seed in range(3):
        write_experiment(tmp_path, f"iddpg_{CHEETAH}", seed, [2] * 3, env=CHEETAH)
        write_experiment(tmp_path, f"ippo_{CHEETAH}", seed, [3] * 3 + [777] * 6, env=CHEETAH)
    text = report.write(Runs([tmp_path]), tmp_path).read_text()
    (row,) = re.findall(r"<tr[^>]*>[^\n]*?ippo_2x3HalfCheetah</code>.*?</tr>", text[text.index('id="scores"') :])
    assert "30,000" in row and "1 [0.50, 1]" in row and "777" not in row


PROBE = """
addEventListener("securitypolicyviolation", () => window.blocked = 1);
addEventListener("load", () => {
  const table = [...document.querySelectorAll("table")].find(t => t.textContent.includes("P(improvement)"));
  const learners = () => [...table.tBodies[0].rows].map(row => row.cells[1].textContent.match(/^[A-Z0-9]+/)[0]);
  const before = learners(), head = [...table.querySelectorAll("button")].find(b => b.textContent === "IQM");
  head.click(); const up = learners();
  head.click(); const down = learners();
  document.documentElement.setAttribute("data-probe", JSON.stringify({
    images: [...document.images].map(i => i.naturalWidth), before, up, down,
    wider: document.documentElement.scrollWidth - innerWidth, figures: document.querySelectorAll("h2").length,
    blocked: window.blocked || 0, quirks: document.compatMode}))
});
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: apt-get install chromium")
@pytest.mark.parametrize("width", [1200, 400])
def test_a_browser_shows_all_of_the_report_and_sorts_its_tables_without_an_error(page, tmp_path, width):
    """A copy of the page is given a script that reports what the browser made of it, and a policy that lets it run."""
    digest = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    text = page.read_text().replace("; script-src ", f"; script-src 'sha256-{digest}' ")
    (tmp_path / "probe.html").write_text(text.replace("</body>", f"<script>{PROBE}</script></body>"))
    command = [CHROMIUM or "", "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tmp_path / 'probe.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'data-probe="([^"]+)"', done.stdout)
    assert found, done.stderr[-1000:]
    seen = json.loads(found[1].replace("&quot;", '"'))
    assert len(seen["images"]) == 4 + 1 and min(seen["images"]) > 100
    assert seen["figures"] == len(FIGURES) + 3
    assert (seen["before"], seen["up"], seen["down"]) == (["I2Q", "IDDPG"], ["IDDPG", "I2Q"], ["I2Q", "IDDPG"])
    assert (seen["wider"] <= 0, seen["blocked"], seen["quirks"]) == (True, 0, "CSS1Compat")
