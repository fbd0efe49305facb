"""Algorithm files repeat what a paper spells out: what they repeat stays the same, word for word.

A name that two files define must have the same source in both, comments included, or stand in DIFFERS with the reason.
Where it fails: change the other file too, or list the difference; strike it out again once it is gone.
"""

import ast

import pytest
from helpers import ALGORITHMS, ROOT, algorithms

# file: (the one it is like, {name: why the two differ}); a name in a class is Class.name; docstrings of files and
# classes are not compared
DIFFERS = {
    "iddpg": (
        "i2q_ddpg",
        {
            "Config.q_lr": "I2Q has more networks that it goes for",
            "Agents.__init__": "I2Q has Qss and f, and what f needs",
            "update": "the paper's contribution",
            "defaults": "I2Q's rule, lam and f depend on the family of tasks",
        },
    ),
    "mbpo_baseline": (
        "i2q_ddpg",
        {
            "SETTINGS": "lam is 0 for every task",
            "f_loss": "no value draws the model",
            "update": "f_loss takes no lam",
        },
    ),
    "i2q_expectile": (
        "iddpg",
        {
            "Config.q_lr": "it has more values",
            "Agents.__init__": "Qss, V and a second critic",
            "update": "its contribution",
            "defaults": "its form depends on the family of tasks",
        },
    ),
    "d3g": (
        "iddpg",
        {
            "Config.pi_lr": "it has tau in the place of a policy",
            "Config.q_lr": "it has models beside its values",
            "Agents.__init__": "other networks",
            "update": "its contribution",
            "train": "acts with two networks",
        },
    ),
    "ippo": (
        "iddpg",
        {
            "Config.hid": "Spinning Up's PPO has 64",
            "Config.pi_lr": "Spinning Up's PPO's",
            "Agents.__init__": "other networks",
            "value": "of an observation, without an action",
            "update": "its contribution",
            "explore": "draws from its policy",
            "train": "on-policy: no replay",
            "defaults": "takes only what an on-policy run has of a task's settings",
        },
    ),
    "examples/itd3": (
        "iddpg",
        {
            "Agents.__init__": "twin critics",
            "value": "has no Qss",
            "td_target": "its contribution",
            "update": "its contribution",
            "train": "draws the noise of its targets, and says when the policy moves",
        },
    ),
    "examples/maddpg": (
        "iddpg",
        {
            "Config.batch_size": "one draw for all agents of a seed",
            "Agents.__init__": "critics of the whole team",
            "value": "of what all agents see and do",
            "td_target": "of what all agents see and do",
            "update": "its contribution",
            "train": "one draw for all agents of a seed",
        },
    ),
    "smac/i2q_drqn": (
        "smac/iql",
        {
            "Config.lr": "it has more networks",
            "Agents.__init__": "Qss, and f or V",
            "Agents.update_targets": "it has more of them",
            "update": "the paper's contribution",
        },
    ),
    "smac/d3g_discrete": (
        "smac/iql",
        {
            "Config.lr": "it has more networks",
            "Agents.__init__": "other networks",
            "Agents.values": "acts by its models",
            "Agents.update_targets": "other targets",
            "update": "its contribution",
            "train": "counts updates for tau",
        },
    ),
}
PAIRS = [(file, like) for file, (like, _) in DIFFERS.items()]


def definitions(name: str) -> dict[str, str]:
    """Source of each function, method, flag and constant of a file, from its first to its last line."""
    text = (ROOT / f"{name}.py").read_text()
    lines, found = text.splitlines(), {}

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                collect(node.body, f"{prefix}{node.name}.")
                continue
            if isinstance(node, ast.FunctionDef):
                label, start = node.name, min([node.lineno, *(d.lineno for d in node.decorator_list)])
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                label, start = ast.unparse(target), node.lineno
            else:
                continue
            found[prefix + label] = "\n".join(lines[start - 1 : node.end_lineno])

    collect(ast.parse(text).body, "")
    return found


@pytest.mark.parametrize("a, b", PAIRS)
def test_what_two_algorithm_files_share_is_word_for_word_the_same(a, b):
    left, right = definitions(a), definitions(b)
    differ = {name for name in left.keys() & right.keys() if left[name] != right[name]}
    assert differ - DIFFERS[a][1].keys() == set(), f"{a}.py and {b}.py differ in these"


@pytest.mark.parametrize("a, b", PAIRS)
def test_every_listed_difference_is_there(a, b):
    left, right = definitions(a), definitions(b)
    gone = {name for name in DIFFERS[a][1] if name not in left or name not in right or left[name] == right[name]}
    assert gone == set(), f"{a}.py and {b}.py no longer differ in these: strike them out of DIFFERS"


def test_every_algorithm_on_networks_is_compared():
    others = {f"{folder}/{file}" for folder in ("examples", "smac") for file in algorithms(ROOT / folder)}
    assert {*ALGORITHMS, *others} == {"i2q_ddpg", "smac/iql", *DIFFERS}


def test_the_comparison_sees_functions_methods_flags_and_their_comments():
    found = definitions("d3g")
    assert {
        "critic_target",
        "explore",
        "train",
        "Agents.pi",
        "Config.gamma",
        "tau_loss",
        "Config.__post_init__",
    } <= found.keys()
    assert "# discount" in found["Config.gamma"]
