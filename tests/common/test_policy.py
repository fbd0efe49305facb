"""common/policy.py: a saved policy does in numpy what was trained, and a folder without one is refused in one line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.toys import Toy
from safetensors.numpy import save_file
from torch import nn

import d3g
import i2q_ddpg
import i2q_expectile
import iddpg
import ippo
import mbpo_baseline
from common.agents import Stacks
from common.errors import UsageError
from common.nets import Module
from common.policy import load_policy
from common.seeding import Streams

ROOT = Path(__file__).resolve().parents[2]
LEARNERS = [d3g, i2q_ddpg, i2q_expectile, iddpg, ippo, mbpo_baseline]


def saved(agents, folder: Path, row: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(agents.policy(row), folder / "policy.safetensors")
    return folder


def moved(agents):
    """The agents with biases, scales and shifts that are not at their start."""
    rng = torch.Generator().manual_seed(0)
    for net in vars(agents).values():
        for part in (*getattr(net, "biases", []), *getattr(net, "scales", []), *getattr(net, "shifts", [])):
            part += 0.5 * torch.randn(part.shape, generator=rng)
    return agents


def observations(env: Toy, B: int = 7) -> np.ndarray:
    """(S, N, B, O), zero in padded dims as an environment's are."""
    shape = len(env.seeds), env.n_agents, B, env.n_obs
    return (np.random.default_rng(0).normal(size=shape) * env.obs_mask[:, None]).astype(np.float32)


@torch.no_grad()
def assert_saved_acts_like_trained(agents, env: Toy, folder: Path) -> None:
    obs = observations(env)
    trained = agents.pi(torch.from_numpy(obs)).numpy()
    assert np.abs(trained).max() > 0.1
    for row in range(len(env.seeds)):
        policy = load_policy(saved(agents, folder, row))
        many = policy(obs[row].swapaxes(0, 1)).swapaxes(0, 1)  # (B, N, .) there, (N, B, .) here
        np.testing.assert_allclose(many, trained[row], rtol=1e-4, atol=1e-6)
        assert many.dtype == np.float32
        for b in range(obs.shape[2]):
            np.testing.assert_allclose(policy(obs[row, :, b]), trained[row, :, b], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda module: module.__name__)
def test_a_saved_policy_acts_like_the_trained_one(learner, tmp_path):
    env = Toy(seeds=[0, 1])  # three agents of unequal width
    agents = moved(learner.Agents(env, learner.Config(hid=8), env.seeds))
    assert_saved_acts_like_trained(agents, env, tmp_path)


class Own(Stacks):
    def __init__(self, env, layers: int = 2, **form):
        super().__init__(env, env.seeds, [8] * layers)
        self.pi = self.net([env.obs_mask], env.act_mask, squash=True, **form)


FORMS = [{"activation": "tanh"}, {"layer_norm": True}, {"activation": "tanh", "layer_norm": True}, {"layers": 0}]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_of_an_mlp_is_read(form, tmp_path):
    env = Toy(seeds=[0, 1])
    assert_saved_acts_like_trained(moved(Own(env, **form)), env, tmp_path)


class Gaussian(Stacks):
    """A policy that is a torch.nn.Module, whose names look like an MLP's."""

    def __init__(self, env):
        super().__init__(env, env.seeds, [8])
        make = lambda: nn.Sequential(nn.Linear(env.n_obs, 8), nn.Linear(8, env.n_act))  # noqa: E731
        self.pi = Module(make, Streams(env.seeds, "weights"), env.n_agents, squash=self.act_mask)


def refusal(folder: Path) -> str:
    """What load_policy says of it, in one line."""
    with pytest.raises(UsageError) as refused:
        load_policy(folder)
    text = str(refused.value)
    assert "\n" not in text and str(folder) in text
    return text


def test_a_module_is_refused_by_what_it_is(tmp_path):
    assert "torch.nn.Module" in refusal(saved(Gaussian(Toy(seeds=[0])), tmp_path))


def test_a_folder_without_a_policy_is_refused_and_the_one_above_points_to_it(tmp_path):
    assert "policy.safetensors: no such file" in refusal(tmp_path)
    assert "no such file" in refusal(tmp_path / "nothing")
    run = tmp_path / "exp" / "exp_s0"
    run.mkdir(parents=True)
    saved(Own(Toy(seeds=[0])), run)
    assert refusal(tmp_path / "exp").endswith(f"did you mean {run}?")


@pytest.mark.parametrize("damage", ["q.0.weight", "pi.1.weight", "pi.0.extra", "shape"])
def test_tensors_that_are_no_mlp_are_refused(damage, tmp_path):
    tensors = Own(Toy(seeds=[0])).policy(0)
    if damage == "q.0.weight":
        tensors = {"q.0.weight": tensors["pi.0.weight"]}
    elif damage == "pi.1.weight":
        del tensors[damage]
    elif damage == "pi.0.extra":
        tensors[damage] = np.ones(2, np.float32)
    else:
        tensors["pi.0.weight"] = tensors["pi.0.weight"][:, :3].copy()
    save_file(tensors, tmp_path / "policy.safetensors")
    assert "of this project" in refusal(tmp_path)


def test_observations_of_another_shape_are_refused(tmp_path):
    policy = load_policy(saved(Own(Toy(seeds=[0])), tmp_path))
    with pytest.raises(ValueError, match=r"\(7, 3, 5\).*\(\.\.\., 3, 4\)"):
        policy(np.zeros((7, 3, 5)))


def test_reading_a_policy_needs_no_torch(tmp_path):
    saved(Own(Toy(seeds=[0])), tmp_path / "run")
    (tmp_path / "torch.py").write_text("raise ImportError('a policy wants torch')")
    code = "import numpy; from common.policy import load_policy; print(load_policy('run')(numpy.ones((9, 3, 4))).shape)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("(9, 3, 3)\n", "")
