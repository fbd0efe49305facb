"""What ends a run early: one line for a user's mistake, a traceback for a defect, one seed for a row that fails."""

import ast
import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from helpers.checks import TINY, command, kept
from pettingzoo import ParallelEnv

import envs
import iddpg
import ippo
from common import flags
from common.checkpoint import Checkpoints
from common.errors import UsageError
from common.folder import Folder
from envs.errors import RowsBroken

ROOT = Path(__file__).resolve().parents[2]
GAME = {"env": "DifferentialGame-2", "exp_name": "x", "record": "off", "compile": "off", "epochs": 2}


class Fragile(ParallelEnv):
    """Two agents that count their steps; `trouble(env, when)` is called when it is reset and stepped."""

    trouble: Any = staticmethod(lambda env, when: None)

    def __init__(self) -> None:
        self.possible_agents, self.agents, self.episodes = ["a", "b"], [], 0

    def observation_space(self, agent: str) -> Box:
        return Box(-9, 9, (2,))

    def action_space(self, agent: str) -> Box:
        return Box(-1, 1, (1,))

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.rng, self.t, self.agents = np.random.default_rng(seed), 0, list(self.possible_agents)
        self.episodes += 1
        Fragile.trouble(self, "reset")
        return self.seen(), {}

    def seen(self) -> dict[str, np.ndarray]:
        return {agent: np.array([self.rng.uniform(), self.t], np.float32) for agent in self.agents}

    def step(self, actions: Any) -> Any:
        self.t += 1
        Fragile.trouble(self, "step")
        no = dict.fromkeys(self.agents, False)
        return self.seen(), dict.fromkeys(self.agents, 0.5), no, no, {}


@pytest.fixture
def made(monkeypatch) -> list[Fragile]:
    """Every environment that fragile_module:make has made: first those that train, then those of the tests."""
    made: list[Fragile] = []

    def make() -> Fragile:
        made.append(Fragile())
        return made[-1]

    module: Any = types.ModuleType("fragile_module")
    module.make = make
    monkeypatch.setitem(sys.modules, "fragile_module", module)
    return made


def fail(what: str) -> None:
    if what == "exit":
        sys.exit(0)
    raise ZeroDivisionError("no\nway")


def run(data_dir: Path, capsys: pytest.CaptureFixture, **flags: Any) -> tuple[int, str]:
    """The status and what was printed to stderr."""
    capsys.readouterr()
    status = command(iddpg, **{**GAME, "data_dir": data_dir, **flags})
    return status, capsys.readouterr().err


# One seed of several


@pytest.mark.parametrize("what", ["raise", "exit"])
@pytest.mark.parametrize(("where", "step"), [("reset", 28), ("step", 31), ("test reset", 60), ("test step", 60)])
def test_an_environment_that_raises_or_exits_ends_its_own_seed(made, monkeypatch, data_dir, capsys, where, step, what):
    flags = {"env": "fragile_module:make", "num_runs": 2}
    assert run(data_dir / "whole", capsys, **flags) == (0, "")
    made.clear()

    def trouble(env: Fragile, when: str) -> None:
        training = len(made) > 1 and env is made[1] and env.episodes == 5
        testing = len(made) > 4 and env is made[4] and env.episodes == 1
        if where.endswith(when) and (testing if "test" in where else training) and (when == "reset" or env.t == 3):
            fail(what)

    monkeypatch.setattr(Fragile, "trouble", staticmethod(trouble))
    status, err = run(data_dir, capsys, **flags)
    raised, called = "raised ZeroDivisionError: no way", r"called sys.exit\(0\) \(test_errors.py, line \d+\)"
    did = raised if what == "raise" else called
    line, _, traceback = err.partition("\n")
    test = "in a test episode " * where.startswith("test")
    pattern = rf"\[s1\] failed: step {step}: {test}the environment {did} \(kept up to its last checkpoint\)"
    assert (status, bool(re.fullmatch(pattern, line))) == (1, True), err
    if what == "raise":  # the author's frames alone
        assert re.match(r'Traceback .*\n  File "\S+test_errors.py", line \d+, in (reset|step)\n', traceback)
    else:
        assert traceback == ""
    whole = [kept(data_dir / "whole" / "x" / f"x_s{seed}") for seed in range(2)]
    assert kept(data_dir / "x" / "x_s0") == whole[0]
    assert Checkpoints(data_dir / "x" / "x_s1" / "checkpoint").steps() == [0]

    monkeypatch.setattr(Fragile, "trouble", staticmethod(lambda env, when: None))
    assert run(data_dir, capsys, **flags) == (0, "")
    assert kept(data_dir / "x" / "x_s1") == whole[1]


def test_one_that_cannot_even_start_leaves_no_folder_and_the_others_finish(made, monkeypatch, data_dir, capsys):
    monkeypatch.setattr(Fragile, "trouble", staticmethod(lambda env, when: env is made[0] and fail("exit")))
    status, err = run(data_dir, capsys, env="fragile_module:make", num_runs=2)
    assert status == 1
    assert re.fullmatch(r"\[s0\] failed: before step 1: the environment called sys.exit\(0\) \(.*\)\n", err)
    assert [path.name for path in (data_dir / "x").iterdir()] == ["x_s1"]
    assert kept(data_dir / "x" / "x_s1")["step"] == 120


@pytest.mark.parametrize("episode", [1, 2], ids=["in its first reset", "where its episode is played again"])
def test_one_that_fails_at_a_resume_ends_its_own_seed(made, monkeypatch, data_dir, capsys, episode):
    flags = {"env": "fragile_module:make", "num_runs": 2}
    assert run(data_dir, capsys, **flags, epochs=1)[0] == 0
    made.clear()
    monkeypatch.setattr(
        Fragile,
        "trouble",
        staticmethod(lambda env, when: env is made[1] and env.episodes == episode and fail("raise")),
    )
    status, err = run(data_dir, capsys, **flags)
    assert status == 1
    assert err.startswith("[s1] failed: before step 61: the environment raised ZeroDivisionError: no way")
    assert [kept(data_dir / "x" / f"x_s{seed}")["step"] for seed in range(2)] == [120, 60]


def test_rows_that_fail_in_one_step_are_all_told_and_the_others_make_it(made, monkeypatch):
    env: Any = envs.make("fragile_module:make", [0, 1, 2])
    env.reset()
    monkeypatch.setattr(Fragile, "trouble", staticmethod(lambda env, when: env in made[::2] and fail("raise")))
    with pytest.raises(RowsBroken, match=r"row 0: .* raised ZeroDivisionError: no way; row 2: ") as error:
        env.step(np.zeros((3, 2, 1), np.float32))
    assert list(error.value.broken_rows) == [0, 2]
    assert [part.t for part in made] == [1, 1, 1]


def test_seeds_that_fail_in_one_step_are_named_each_under_one_traceback(made, monkeypatch, data_dir, capsys):
    monkeypatch.setattr(Fragile, "trouble", staticmethod(lambda env, when: env.t == 2 and fail("raise")))
    status, err = run(data_dir, capsys, env="fragile_module:make", num_runs=3)
    assert status == 1
    assert re.findall(r"\[(s\d)\] failed: step 2: ", err) == ["s0", "s1", "s2"]
    assert err.count("Traceback") == 1
    assert len(made) == 3 + 3 * TINY["num_test_episodes"]  # nothing was left to be tried again


def test_a_robot_that_raises_ends_its_own_row():
    env: Any = envs.make("3x1Hopper", [0, 1])
    env.reset()
    env.envs[1].step = lambda act: fail("raise")
    with pytest.raises(RowsBroken) as error:
        env.step(np.zeros((2, 3, 1), np.float32))
    assert list(error.value.broken_rows) == [1]


def test_a_signal_is_not_swallowed_by_an_environment_that_catches_exceptions(made, monkeypatch, data_dir, capsys):
    def trouble(env: Fragile, when: str) -> None:
        if env is made[0] and env.episodes == 2 and when == "step" and env.t == 3:
            try:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
            except Exception:
                pytest.fail("swallowed")

    monkeypatch.setattr("common.signals.ECHO", 0)  # the second is one of its own
    monkeypatch.setattr(Fragile, "trouble", staticmethod(trouble))
    status, err = run(data_dir, capsys, env="fragile_module:make")
    assert status == 130
    assert err.startswith("stopped by SIGINT\nto resume: ")


# One line, or a traceback


def test_agents_that_leave_one_by_one_end_the_run_in_one_line(made, monkeypatch, data_dir, capsys):
    step = Fragile.step

    def early(self: Fragile, actions: Any) -> Any:
        seen, rews, _, cuts, infos = step(self, actions)
        return seen, rews, {"a": self.episodes == 2, "b": False}, cuts, infos

    monkeypatch.setattr(Fragile, "step", early)
    status, err = run(data_dir, capsys, env="fragile_module:make", num_runs=2)
    assert status == 2
    assert re.fullmatch(r"iddpg.py: --env 'fragile_module:make': agents leave one by one \(.*\n", err)


class Wrong(iddpg.Agents):
    """Its author was mistaken."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        raise ValueError("an author's")


def refuse(*args: Any) -> Any:
    raise FileNotFoundError(2, "No such file or directory", "my_table.npy")


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("Agents", Wrong, "[s0 s1] before step 1: ValueError, a bug in the program:"),
        ("update", refuse, "[s0 s1] step 20: FileNotFoundError, a bug in the program:"),
        ("explore", refuse, "[s0 s1] step 1: FileNotFoundError, a bug in the program:"),
    ],
)
def test_an_authors_exception_keeps_its_traceback_under_a_line_that_says_where(
    monkeypatch, data_dir, capsys, name, value, line
):
    monkeypatch.setattr(iddpg, name, value)
    status, err = run(data_dir, capsys, num_runs=2)
    assert status == 1
    assert err.startswith(f"{line}\nTraceback (most recent call last):\n")
    assert f", in {'__init__' if name == 'Agents' else 'refuse'}\n" in err
    assert "make room" not in err


def test_an_update_that_calls_exit_is_a_defect_and_no_success(monkeypatch, data_dir, capsys):
    monkeypatch.setattr(iddpg, "update", lambda *args: sys.exit())
    status, err = run(data_dir, capsys, num_runs=2)
    assert status == 1
    assert re.fullmatch(r"\[s0 s1\] step 20: sys.exit\(\) was called \(test_errors.py, line \d+\)\n", err)


def test_a_defect_of_a_config_is_not_taken_for_a_users_mistake(monkeypatch, data_dir, capsys):
    monkeypatch.setattr(flags, "check_ranges", lambda config: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        run(data_dir, capsys)


@pytest.mark.parametrize("record", ["on", "off"])
def test_an_update_that_draws_from_a_global_generator_is_refused_in_one_line(monkeypatch, data_dir, capsys, record):
    update = iddpg.update

    def noisy(agents: Any, batch: Any, cfg: Any) -> Any:
        torch.randn(1)
        return update(agents, batch, cfg)

    monkeypatch.setattr(iddpg, "update", noisy)
    status, err = run(data_dir, capsys, record=record)
    assert status == 2
    assert re.fullmatch(r"iddpg.py: update draws from torch's global generator, .*\n", err)


def test_no_users_mistake_is_a_plain_value_error():
    """But for inputs of another shape, of networks and of loaded policies, which are their author's."""
    files = [*ROOT.glob("common/**/*.py"), *ROOT.glob("envs/*.py")]
    files += [ROOT / f"{name}.py" for name in ("d3g", "i2q_ddpg", "i2q_expectile", "iddpg", "ippo", "mbpo_baseline")]
    plain = {
        path.name
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) == "ValueError"
    }
    assert plain == {"passes.py", "policy.py"}


# --env package.module:factory

MODULES = {
    "exits.py": "import sys\nsys.exit(0)\n",
    "raises.py": "table = {}\ntable['x']\n",
    "syntax.py": "x = 1\ndef f(:\n",
    "needs.py": "import no_such_library\n",
    "factories.py": (
        "import sys\n"
        "def exits(): sys.exit(0)\n"
        "def raises(): raise TypeError('no licence')\n"
        "def wants(size): pass\n"
        "class Empty:\n    pass\n"
    ),
}
BAD = {  # name: status, line, whether the author's traceback follows
    "exits:make": (1, r"importing exits called sys.exit\(0\) \(exits.py, line 2\)", False),
    "raises:make": (1, "importing raises raised KeyError: 'x'", True),
    "syntax:make": (1, r"importing syntax raised SyntaxError: .*\(syntax.py, line 2\)", False),
    "needs:make": (1, "importing needs raised ModuleNotFoundError: No module named 'no_such_library'", True),
    "factories:exits": (1, r"exits\(\) called sys.exit\(0\) \(factories.py, line 2\)", False),
    "factories:raises": (1, r"raises\(\) raised TypeError: no licence", True),
    "factories:wants": (2, r"it has to be a function without arguments \(wants\(\) missing .*\)", False),
    "factories:Empty": (2, "returns a Empty, not a pettingzoo ParallelEnv", False),
    "factories:missing": (2, "factories has no function missing; must be package.module:factory", False),
    "os:system": (2, r"it has to be a function without arguments \(system\(\) missing .*\)", False),
    "os:sep": (2, "os has no function sep; must be package.module:factory", False),
    "no_such_module.x:make": (2, "No module named 'no_such_module'; must be package.module:factory", False),
    ".x:make": (2, "must be package.module:factory", False),
}


@pytest.mark.parametrize("name", BAD)
def test_what_makes_no_environment_is_named_with_its_reason_and_leaves_nothing(
    monkeypatch, tmp_path, data_dir, capsys, name
):
    status, line, shown = BAD[name]
    folder = tmp_path / "cwd"
    folder.mkdir()
    for path, text in MODULES.items():
        (folder / path).write_text(text)
        monkeypatch.delitem(sys.modules, path.removesuffix(".py"), raising=False)
    monkeypatch.chdir(folder)  # and not on the path
    monkeypatch.setattr(sys, "path", list(sys.path))
    ended, err = run(data_dir, capsys, env=name, num_runs=2)
    first, _, rest = err.partition("\n")
    assert (ended, bool(re.fullmatch(rf"iddpg.py: --env '{name}': {line}", first))) == (status, True), err
    if shown:
        assert re.match(rf'Traceback .*\n  File "{folder}/\w+.py", line \d+, in ', rest)
    else:
        assert rest == ""
    assert not data_dir.exists()


MEET = """
import sys
from test_errors import Fragile

def make_env():
    return Fragile()

def trouble(env, when):
    if env.t == 3 and "{}" == "exits":
        sys.exit(0)

Fragile.trouble = staticmethod(trouble)
"""


@pytest.mark.parametrize(("what", "status"), [("plays", 0), ("exits", 1)])
def test_a_process_finds_a_module_in_its_working_folder_and_never_ends_well_by_its_exit(tmp_path, what, status):
    (tmp_path / "meet.py").write_text(MEET.format(what))
    flags = {**TINY, **GAME, "env": "meet:make_env", "epochs": 1}
    done = subprocess.run(
        [sys.executable, str(ROOT / "iddpg.py"), *(f"--{name}={value}" for name, value in flags.items())],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT / "tests" / "common")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    failed = r"\[s0\] failed: step 3: the environment called sys.exit\(0\) \(meet.py, line 10\) \(.*\)\n"
    assert re.fullmatch(failed if status else "", done.stderr)


# Folders


def test_only_folders_that_were_made_for_nothing_are_removed(tmp_path, capsys):
    before = tmp_path / "mine"
    before.mkdir()
    assert run(before, capsys, env="no_such_module:make")[0] == 2
    assert before.exists() and not list(before.iterdir())
    (before / "x" / "x_s0").mkdir(parents=True)
    assert run(before, capsys, env="no_such_module:make")[0] == 2
    assert (before / "x" / "x_s0").exists()


def test_a_lock_that_its_last_owner_removed_meanwhile_is_taken_anew(monkeypatch, data_dir):
    folder = Folder(iddpg.Config(exp_name="x", data_dir=str(data_dir)), "iddpg", 0)
    taken: list[Any] = []
    flock = Folder.__enter__.__globals__["fcntl"].flock

    def late(file: Any, how: int) -> None:
        if not taken:
            (folder.path / ".lock").unlink()
        taken.append(file)
        flock(file, how)

    monkeypatch.setattr(Folder.__enter__.__globals__["fcntl"], "flock", late)
    with folder:
        assert os.path.samestat(os.fstat(folder.lock.fileno()), os.stat(folder.path / ".lock"))
    assert len(taken) == 2


def test_agents_that_cannot_be_saved_leave_no_folder(monkeypatch, data_dir, capsys):
    class Unfit(iddpg.Agents):
        def __init__(self, *args: Any):
            super().__init__(*args)
            self.rng = np.random.default_rng(0)

    monkeypatch.setattr(iddpg, "Agents", Unfit)
    status, err = run(data_dir, capsys)
    assert (status, err.count("\n")) == (2, 1)
    assert "agents.rng" in err
    assert not data_dir.exists()


# IPPO's rollout


def rollout(monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    """What ippo.py makes of these flags."""
    monkeypatch.setattr(sys, "argv", ["ippo.py", *flags])
    from common.flags import parse

    return parse(ippo.Config, ippo.defaults, ippo.__doc__, "ippo").rollout


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", 4000),
        ("--epochs 4 --steps_per_epoch 1000", 4000),
        ("--epochs 2 --steps_per_epoch 600", 600),  # fits itself to a short run
        ("--epochs 2 --steps_per_epoch 600 --rollout 1200", 1200),
        ("--env DifferentialGame-2 --rollout 32", 32),
    ],
)
def test_the_default_rollout_fits_itself_to_a_short_run(monkeypatch, flags, expected):
    assert rollout(monkeypatch, *flags.split()) == expected
    assert ippo.Config().rollout == 4000


@pytest.mark.parametrize("typed", [4000, 1201, -1])
def test_a_typed_rollout_longer_than_the_run_is_refused_with_the_reason(monkeypatch, typed):
    with pytest.raises(UsageError, match=f"^--rollout {typed}: ") as error:
        rollout(monkeypatch, "--epochs", "2", "--steps_per_epoch", "600", "--rollout", str(typed))
    if typed > 0:
        assert "1200 steps (--epochs 2 of --steps_per_epoch 600)" in str(error.value)
