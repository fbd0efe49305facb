"""Writes every number of docs/results.md, README's verdicts, the tables of results/README.md, and their pictures.

    python -m paper.results             write what stands between the marks of these pages, and their pictures
    python -m paper.results --check     write nothing; status 1 where a page is not what the runs say

A block begins with a comment `<!-- results: NAME -->` and ends with `<!-- end -->`; BLOCKS says what NAME is. Text
outside of them holds no number. Run it again whenever results/ has changed; a test compares.
"""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from common.console import say
from common.disk import write_atomic
from common.parser import Parser
from curves.draw import draw
from curves.lines import Line, Panel, arrange
from curves.style import View
from curves.table import describe
from paper import seeds, tables
from paper.claims import OTHERS, RULES, Answer
from paper.data import Data
from paper.figures import FIGURES, I2Q, ROBOTS, Figure
from paper.panels import panels
from paper.report import name_of
from paper.runs import ROOT

PAGES = ("README.md", "docs/results.md", "results/README.md")
VERDICTS = ("reproduced", "not reproduced", "undecided")
ON_ROBOTS = FIGURES["9"].lines | FIGURES["11"].lines | FIGURES["13"].lines
ON_ROBOTS |= {"I2Q, released rule": f"{I2Q} --rule released"}
BLOCK = re.compile(r"(<!-- results: (\w+) -->\n)(.*?)(<!-- end -->)", re.S)
PICTURES = {
    "differential_game": FIGURES["6"],
    "stochastic_game": FIGURES["8"],
    "observations": FIGURES["observations"],
    "robots": Figure("9", "Multi-Agent MuJoCo", ROBOTS, ON_ROBOTS, (0, 0, 0), references=True),
}


def verdicts(data: Data) -> str:
    """Claim by claim: what is reproduced, what is not, what is undecided."""
    text = []
    for verdict in VERDICTS:
        answers = [answer for answer in data.answers if answer.verdict == verdict]
        text.append(f"* **{verdict.capitalize()}: {len(answers)} of {len(data.answers)} claims.**")
        for answer in answers:
            told = [f"{name_of(answer.figure)}. {answer.claim.text}", answer.evidence, answer.needs]
            text.append("    * " + " ".join(f"{part[0].upper()}{part[1:]}." for part in told if part))
    return "\n".join(text)


def short(data: Data) -> str:
    """The verdicts on the I2Q paper's claims as a table for README, decided ones first, and a line on the others."""
    own = [answer for answer in data.answers if answer.figure.number not in OTHERS]
    others = [answer for answer in data.answers if answer.figure.number in OTHERS]
    lines = [
        [name_of(a.figure), a.claim.text, _verdict(a), a.seen, a.seeds]
        for a in sorted(own, key=lambda answer: VERDICTS.index(answer.verdict))
    ]
    header = ["figure", "the paper's claim", "verdict", "our runs [95 %]", "more seeds needed"]
    return (
        f"Of {len(own)} claims of the paper, {_counts(own)}.\n\n{tables.markdown(header, lines)}\n\n"
        f"Of {len(others)} claims of the QPLEX page, {_counts(others)}."
    )


def _verdict(answer: Answer) -> str:
    if answer.verdict != "undecided":
        return f"**{answer.verdict}**"
    return f"undecided: {answer.gaps}" if answer.gaps else "undecided"


def _counts(answers: Sequence[Answer]) -> str:
    yes, no, open_ = (sum(a.verdict == verdict for a in answers) for verdict in VERDICTS)
    return f"{yes} {'is' if yes == 1 else 'are'} reproduced, {no} not reproduced, {open_} undecided"


def evidence(data: Data) -> str:
    """What each claim rests on, task by task, where it was run."""
    lines = []
    for answer in data.answers:
        for task, text in answer.tasks.items():
            if not text.startswith("not run"):
                lines.append([name_of(answer.figure), answer.claim.text, task, text])
    return tables.markdown(["figure", "claim", "task", "our runs"], lines)


def rule(data: Data) -> str:
    return "\n".join(f"* {sentence}" for sentence in RULES)


BLOCKS: dict[str, Callable[[Data], str]] = {
    "short": short,
    "verdicts": verdicts,
    "evidence": evidence,
    "rule": rule,
    **tables.BLOCKS,
    **seeds.BLOCKS,
}


def fill(text: str, data: Data) -> str:
    """The page with its blocks written anew. ValueError for a block that BLOCKS does not know."""

    def block(match: re.Match[str]) -> str:
        if match[2] not in BLOCKS:
            raise ValueError(f"<!-- results: {match[2]} -->: no such block; known: {', '.join(BLOCKS)}")
        return f"{match[1]}\n{BLOCKS[match[2]](data)}\n\n{match[4]}"

    return BLOCK.sub(block, text)


def pictures(data: Data, out: Path) -> list[Path]:
    """The pages' figures: both games, one seed by seed; what an agent sees; robots at equal steps."""
    game = panels(PICTURES["differential_game"], data.runs)
    apart = [replace(panel, lines=[one for line in panel.lines for one in _seeds(line)], missing=()) for panel in game]
    robots = [_cut(panel) for panel in panels(PICTURES["robots"], data.runs) if panel.lines]
    whole = {name: panels(PICTURES[name], data.runs) for name in ("stochastic_game", "observations")}
    found = []
    for name, drawn in {"differential_game": apart, **whole, "robots": robots}.items():
        if not any(panel.lines for panel in drawn):  # not run yet
            continue
        found.append(out / f"{name}.png")
        draw(drawn, found[-1], View(caption=describe(drawn, data.runs.fit(PICTURES[name]))))
    return found


def _cut(panel: Panel) -> Panel:
    """The panel up to the step that all of its lines have."""
    end, lines = min(line.x[-1] for line in panel.lines), []
    for line in panel.lines:
        k = int((line.x <= end).sum())
        parts = {name: getattr(line, name)[:k] for name in ("x", "mid", "low", "high")}
        lines.append(replace(line, values=line.values[:, :k], **parts))
    return replace(panel, lines=lines, missing=())


def _seeds(line: Line) -> list[Line]:
    """Each seed of a line as a line of its own."""
    return [arrange([replace(line.experiment, runs=[run])])[0].lines[0] for run in line.runs]


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("paper.results", __doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; say which pages are out of date")
    args = parser.parse_args(argv)
    data, status = Data(ROOT / "results"), 0
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        new = fill(text, data)
        if args.check and new != text:
            say(f"{page}: not what results/ says; run python -m paper.results", sys.stderr)
            status = 1
        elif not args.check:
            write_atomic(ROOT / page, new.encode())
            say(f"page: {ROOT / page}")
    if not args.check:
        for path in pictures(data, ROOT / "docs"):
            say(f"picture: {path}")
    return status


if __name__ == "__main__":
    sys.exit(main())
