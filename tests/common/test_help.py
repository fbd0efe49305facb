"""--help on terminals of several widths."""

import sys

import pytest

import d3g
import i2q_ddpg
import i2q_expectile
import iddpg
import ippo
import mbpo_baseline
from common.flags import parse


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize(
    "module", [d3g, i2q_ddpg, i2q_expectile, iddpg, ippo, mbpo_baseline], ids=lambda module: module.__name__
)
def test_help_fits_the_terminal_and_breaks_no_word(module, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        parse(module.Config, module.defaults, module.__doc__, module.__name__)
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    head = "\n".join(lines[: next(i for i, line in enumerate(lines) if " options " in line)])
    first = module.__doc__.partition("\n\n")[0].split()
    assert " ".join(first) in " ".join(head.split())  # whole, and in words
    assert len(head.splitlines()) < 12
