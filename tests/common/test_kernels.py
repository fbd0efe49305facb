"""The compiled kernels against float64, and how they come to be."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ALGORITHMS
from helpers.checks import compiled, compiled_for
from helpers.toys import Toy, make_agents, make_batch, parameters
from torch import Tensor

from common.agents import Actor
from common.fast import kernels
from common.nets import MLP
from common.seeding import Streams

ROOT = Path(__file__).parents[2]


@pytest.fixture
def native(monkeypatch):
    monkeypatch.setattr(MLP, "kernels", compiled())
    return MLP.kernels


def pair(*sizes: int, n_seeds: int = 2, n_agents: int = 2) -> tuple[MLP, MLP]:
    """One stack in single and in double precision; the latter goes another way, through PyTorch."""
    one = MLP.glorot(
        sizes, Streams(range(n_seeds), "weights"), np.full(n_agents, sizes[0]), np.full(n_agents, sizes[-1])
    )
    for bias in one.biases:
        bias.copy_(torch.rand(bias.shape, generator=torch.Generator().manual_seed(1)) - 0.5)
    return one, MLP(sizes, one.flat.detach().double().requires_grad_())


def gradients(net: MLP, x: Tensor, weight: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    out = net(x)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), [x, net.flat])]


# below, at and above the width of a vector, a panel and a tile on any CPU, in each of rows, units and inputs
@pytest.mark.parametrize("units", [1, 3, 4, 8, 15, 16, 17, 31, 33, 47, 64, 100])
@pytest.mark.parametrize("batch", [1, 2, 6, 13, 14, 15, 29])
def test_kernels_equal_double_precision_at_every_remainder_of_a_tile(units, batch, native):
    one, double = pair(units, 33, units, 5)
    generator = torch.Generator().manual_seed(units * batch)
    x = torch.randn(2, 2, batch, units, generator=generator)
    weight = torch.randn(2, 2, batch, 5, generator=generator)
    for actual, expected in zip(gradients(one, x, weight), gradients(double, x.double(), weight.double())):
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


# one block of rows, a row more, blocks of unlike sizes
@pytest.mark.parametrize("batch", [256, 257, 700, 1100])
def test_kernels_equal_double_precision_for_a_whole_rollout(batch, native):
    one, double = pair(9, 40, 20, 3)
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 2, batch, 9, generator=generator), torch.randn(2, 2, batch, 3, generator=generator)
    for actual, expected in zip(gradients(one, x, weight), gradients(double, x.double(), weight.double())):
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_a_row_has_the_same_bits_in_a_batch_of_any_size(native):
    one, _ = pair(9, 64, 64, 3)
    x = torch.randn(2, 2, 700, 9, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = one(x)
        for batch in (1, 7, 14, 39, 256, 257):
            assert torch.equal(one(x[:, :, :batch]), whole[:, :, :batch])


@pytest.mark.parametrize("sizes", [(9, 64, 64, 3), (5, 33, 7), (3, 20, 1)], ids=str)
def test_gradients_have_the_same_bits_in_however_many_blocks_their_rows_lie(sizes, native):
    one, _ = pair(*sizes)
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(2, 2, 200, width, generator=generator) for width in (sizes[0], sizes[-1]))
    _, _, alone = gradients(one, x, weight)
    for start in (0, 100, 450):  # of four blocks; rows without a gradient add nothing to a sum
        long, where = torch.ones(2, 2, 800, sizes[0]), torch.zeros(2, 2, 800, sizes[-1])
        long[:, :, start : start + 200], where[:, :, start : start + 200] = x, weight
        assert torch.equal(gradients(one, long, where)[2], alone)


def test_threads_share_out_networks_and_change_no_bit(native):
    one, _ = pair(9, 64, 64, 3, n_seeds=3, n_agents=3)
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(3, 3, 40, 9, generator=generator), torch.randn(3, 3, 40, 3, generator=generator)
    alone = gradients(one, x, weight)
    try:
        for threads in (2, 5, 3, 20):
            native.threads(threads)
            for _ in range(50):
                assert all(map(torch.equal, gradients(one, x, weight), alone))
    finally:
        native.threads(1)


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
@pytest.mark.parametrize("cpu", ["native", "haswell"])
def test_no_bit_depends_on_the_compiler_or_on_the_width_of_vectors(compiler, cpu, native, monkeypatch):
    one, _ = pair(9, 70, 64, 3)
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 2, 300, 9, generator=generator), torch.randn(2, 2, 300, 3, generator=generator)
    expected = gradients(one, x, weight)
    monkeypatch.setattr(MLP, "kernels", compiled_for(compiler, cpu, monkeypatch))
    assert all(map(torch.equal, gradients(one, x, weight), expected))


def test_a_stack_passes_back_once(native):
    one, _ = pair(3, 8, 2)
    loss = one(torch.ones(2, 2, 4, 3)).sum()
    torch.autograd.grad(loss, one.flat, retain_graph=True)
    with pytest.raises(RuntimeError, match="pass back once"):
        torch.autograd.grad(loss, one.flat)


def test_stacks_that_wait_for_their_gradients_at_once_keep_their_own_activations(native):
    one, double = pair(3, 8, 3)
    x, weight = torch.randn(2, 2, 4, 3, generator=torch.Generator().manual_seed(0)), torch.ones(2, 2, 4, 3)
    for _ in range(3):
        (twice,) = torch.autograd.grad(one(one(x)).sum(), one.flat)
        (expected,) = torch.autograd.grad(double(double(x.double())).sum(), double.flat)
        torch.testing.assert_close(twice.double(), expected, rtol=1e-5, atol=1e-5)
        gradients(one, x, weight)


def test_inputs_may_be_slices_of_wider_rows(native):
    one, _ = pair(9, 20, 3)
    wide = torch.randn(2, 2, 50, 12, generator=torch.Generator().manual_seed(0))
    weight = torch.ones(2, 2, 50, 3)
    for view in (wide[..., 2:11], wide[:, :, ::2, :9], wide.transpose(0, 1)[..., :9], wide[..., :9].flip(-1)):
        copied = gradients(one, view.contiguous(), weight[:, :, : view.shape[2]])
        for actual, expected in zip(gradients(one, view, weight[:, :, : view.shape[2]]), copied):
            assert torch.equal(actual, expected)


def test_a_nan_of_a_network_stays_a_nan_of_that_network(native):
    one, _ = pair(3, 8, 2)
    one.flat.detach()[0, 1, 0] = torch.nan
    with torch.no_grad():
        bad = one(torch.ones(2, 2, 4, 3)).isnan().any(-1).any(-1)
    assert bad.tolist() == [[False, True], [False, False]]


def train(data_dir: Path, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    size = "--hid 8 --epochs 1 --steps_per_epoch 60 --update_after 20 --update_every 10 --updates 3 --batch_size 5"
    size += " --replay_size 100 --num_test_episodes 1 --max_ep_len 7 --test_ep_len 5 --threads 1 --num_runs 1"
    argv = [sys.executable, "iddpg.py", "--env", "DifferentialGame-2", "--data_dir", str(data_dir), *size.split()]
    return subprocess.run([*argv, *flags], cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True)


def config_of(data_dir: Path) -> dict:
    (path,) = data_dir.rglob("config.json")
    return json.loads(path.read_text())


def test_without_a_compiler_a_run_is_eager_and_says_so_in_one_line(data_dir):
    done = train(data_dir, CXX="no-such-compiler")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "compile" in line]
    assert line.startswith("kernels not compiled") and "no-such-compiler" in line
    assert config_of(data_dir)["compile"] == "off"


def test_compile_on_without_a_compiler_is_refused_in_one_line(data_dir):
    done = train(data_dir, "--compile", "on", CXX="no-such-compiler")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "--compile on" in line and "no-such-compiler" in line and "--compile off" in line


def test_what_a_compiler_complains_of_is_in_the_line(data_dir, tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] || { echo "mlp.cpp:1: error: no room" >&2; exit 1; }\n')
    compiler.chmod(0o755)
    done = train(data_dir, "--compile", "on", CXX=str(compiler), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 2
    assert "error: no room" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_compiler_that_says_nothing_is_quoted_with_its_status(cache, monkeypatch):
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(RuntimeError, match=r"^false: status 1$"):
        kernels.load()


def test_a_library_that_cannot_be_loaded_is_named_with_the_way_out(cache, monkeypatch):
    def refuse(path: str):
        raise OSError(f"{path}: failed to map segment from shared object")

    monkeypatch.setattr(kernels.ctypes, "CDLL", refuse)
    with pytest.raises(RuntimeError, match=r"failed to map segment.*noexec.*XDG_CACHE_HOME"):
        kernels.load()


def test_a_run_goes_on_with_the_kernels_it_began_with(data_dir):
    compiled()
    assert train(data_dir, "--compile", "off").returncode == 0
    again = train(data_dir, "--epochs", "2")
    assert again.returncode == 0, again.stderr
    assert config_of(data_dir)["compile"] == "off"


def test_a_run_that_began_compiled_refuses_to_resume_without_and_names_the_way_out(data_dir):
    compiled()
    assert train(data_dir).returncode == 0
    assert config_of(data_dir)["compile"] == "on"
    rows = [path.read_bytes() for path in data_dir.rglob("progress.txt")]
    again = train(data_dir, "--epochs", "2", CXX="no-such-compiler")
    assert again.returncode == 2
    (line,) = again.stderr.splitlines()
    assert "began with compiled kernels" in line and "no-such-compiler" in line and "--compile off" in line
    assert [path.read_bytes() for path in data_dir.rglob("progress.txt")] == rows
    assert train(data_dir, "--epochs", "2", "--compile", "off", CXX="no-such-compiler").returncode == 0


def test_a_compiler_that_fails_once_at_a_resume_is_tried_again(data_dir, tmp_path):
    compiled()
    assert train(data_dir).returncode == 0
    compiler = tmp_path / "c++"
    compiler.write_text(f'#!/bin/sh\n[ -e {tmp_path}/tried ] || {{ touch {tmp_path}/tried; exit 1; }}\nexec c++ "$@"\n')
    compiler.chmod(0o755)
    again = train(data_dir, "--epochs", "2", CXX=str(compiler))
    assert again.returncode == 0, again.stderr
    assert config_of(data_dir)["compile"] == "on"


@pytest.fixture
def hasty(tmp_path):
    """A compiler that leaves out what takes the time, and writes a line to calls, beside it, for each library."""
    compiled()
    compiler, calls = tmp_path / "c++", tmp_path / "calls"
    real = os.environ.get("CXX", "c++")
    compiler.write_text(f'#!/bin/sh\n[ "$1" = --version ] || echo x >> {calls}\nexec {real} "$@" -O0\n')
    compiler.chmod(0o755)
    return compiler


def test_of_ten_processes_that_start_at_once_one_compiles(tmp_path, hasty):
    env = {**os.environ, "CXX": str(hasty), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    code = "from common.fast.kernels import load; load(); load()"
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env) for _ in range(10)]
    assert [process.wait() for process in processes] == [0] * 10
    assert hasty.with_name("calls").read_text() == "x\n"


def test_a_run_says_that_it_compiles_and_the_next_one_finds_what_was_compiled(data_dir, tmp_path):
    compiled()
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    first = train(data_dir, **cache)
    assert first.stdout.count("compiling the networks' kernels") == 1
    assert "compiling" not in train(data_dir, "--epochs", "2", **cache).stdout


def test_a_home_that_cannot_be_written_to_is_no_hindrance(tmp_path, monkeypatch, hasty):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CXX", str(hasty))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert kernels.load().library.mlp_forward


def test_a_temporary_cache_is_removed_at_the_end(tmp_path, hasty):
    (tmp_path / "file").touch()
    env = {**os.environ, "CXX": str(hasty), "XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path)}
    code = f"from common.fast.kernels import load; import glob; load(); print(len(glob.glob('{tmp_path}/i2q-*')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr
    assert list(tmp_path.glob("i2q-*")) == []


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of this test's, with the library in it."""
    built, said = Path(compiled().library._name), []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache = kernels._cache()
    for suffix in (".so", ".sha256"):  # a copy, as building takes seconds
        shutil.copy(built.with_suffix(suffix), cache)
    kernels.load(said.append)
    assert not said, "the copy was not taken"
    return cache


def test_the_cache_is_its_owners_alone(cache):
    assert cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("what", ["folder", "library"])
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_kernels_that_others_could_have_written_are_refused_in_one_line(what, mode, cache):
    path = cache if what == "folder" else next(cache.glob("*.so"))
    path.chmod(mode)
    with pytest.raises(RuntimeError, match="can be written by others") as error:
        kernels.load()
    assert str(path) in str(error.value) and "chmod" in str(error.value)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["folder", "library"])
def test_kernels_of_another_user_are_refused_in_one_line(what, cache):
    os.chown(cache if what == "folder" else next(cache.glob("*.so")), 12345, -1)
    with pytest.raises(RuntimeError, match=r"belongs to another user \(uid 12345\)"):
        kernels.load()


@pytest.mark.parametrize("damage", [b"", b"no library", "half", "one byte"])
def test_a_damaged_library_is_built_anew(damage, cache):
    library, said = next(cache.glob("*.so")), []
    whole = library.read_bytes()
    if damage == "half":
        damage = whole[: len(whole) // 2]
    elif damage == "one byte":
        damage = whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]
    library.unlink()
    library.write_bytes(damage)
    kernels.load(said.append)
    assert len(said) == 1 and library.read_bytes() != damage
    kernels.load(said.append)
    assert len(said) == 1


def test_a_disk_that_is_full_while_compiling_leaves_nothing_half_written(cache, monkeypatch, tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec c++ --version\n'
        'while [ "$1" != -o ]; do shift; done\nhead -c 1000 /dev/zero > "$2"\n'
        'echo "c++: error: $2: No space left on device" >&2\nexit 1\n'
    )
    compiler.chmod(0o755)
    before = sorted(cache.iterdir())
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(RuntimeError, match="No space left on device"):
        kernels.load()
    assert {path.suffix for path in set(cache.iterdir()) - set(before)} <= {".lock"}


@pytest.mark.parametrize("name", sorted({*ALGORITHMS} - {"ippo"}))  # whose update takes a rollout
def test_an_update_computed_by_kernels_is_that_of_pytorch(name):
    module, env, agents = importlib.import_module(name), Toy([1, 2]), {}
    for path, library in {"eager": None, "compiled": compiled()}.items():
        agents[path], cfg = make_agents(module, env, hid=24)
        agents[path].use(library)
        for turn in range(4):
            module.update(agents[path], make_batch(env, B=20, seed=turn), cfg)
    for row in range(2):
        eager, fast = (parameters(agents[path], row) for path in ("eager", "compiled"))
        assert eager.keys() == fast.keys()
        for part in eager:  # four steps of at most .001: an error in a gradient would show in the third digit of a step
            np.testing.assert_allclose(fast[part], eager[part], atol=2e-6)
    assert any(
        (parameters(agents["eager"], 0)[part] != parameters(agents["compiled"], 0)[part]).any() for part in eager
    )


# The same bits on every CPU


ACTS = """
import sys
import numpy as np
import torch
from common.agents import Actor
from common.fast import kernels
from common.nets import MLP
from common.agents import Actor
from common.seeding import Streams

native, differ = kernels.load(), 0
for sizes in [(6, 256, 256, 3), (3, 256, 1), (8, 64, 4), (9, 33, 31, 7), (5, 250, 1), (1, 8, 1), (2, 6), (13, 10, 9)]:
    net = MLP.glorot(sizes, Streams(range(2), "weights"), np.full(3, sizes[0]), np.full(3, sizes[-1]))
    for bias in net.biases:
        bias.copy_(torch.rand(bias.shape, generator=torch.Generator().manual_seed(1)))
    actor, rng = Actor(net), np.random.default_rng(0)
    for _ in range(10):
        x = rng.normal(size=(2, 3, sizes[0])).astype(np.float32)
        net.kernels = None
        numpy = actor(x)
        net.kernels = native
        differ += int((actor(x) != numpy).sum())
print(differ)
"""


def python(*argv: str, **environ: str) -> str:
    """What a Python of its own prints."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    return subprocess.run([sys.executable, *argv], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout


def on_x86() -> None:
    if not {"avx2", "fma"} <= set(kernels._instructions().split()):
        pytest.skip("an x86 CPU with AVX2 is needed")


def test_acting_sums_as_numpy_does_on_most_cpus(native):
    on_x86()
    assert python("-c", ACTS, OPENBLAS_CORETYPE="Haswell").split()[-1] == "0"


@pytest.mark.parametrize("sizes", [(6, 32, 32, 3), (3, 40, 1)])
def test_acting_equals_the_networks_pass_up_to_rounding(sizes, native):
    one, double = pair(*sizes)
    x = np.random.default_rng(0).normal(size=(2, 2, sizes[0])).astype(np.float32)
    with torch.no_grad():
        expected = double(torch.from_numpy(x)[:, :, None].double())[:, :, 0].numpy()
    np.testing.assert_allclose(Actor(one)(x), expected, rtol=1e-5, atol=1e-5)


def test_acting_on_an_observation_of_another_shape_is_refused(native):
    one, _ = pair(6, 8, 3)
    with pytest.raises(ValueError, match=r"input \(2, 2, 5\) float32; it takes \(S, N, I\) = \(2, 2, 6\) float32"):
        Actor(one)(np.zeros((2, 2, 5), np.float32))


def test_a_compiled_run_has_the_same_bits_whatever_code_its_libraries_choose_for_the_cpu(native, tmp_path):
    """numpy's products and MKL's tanh choose theirs; the first acts, the second squashes policies and models."""
    on_x86()
    flags = "--env DifferentialGame-2 --epochs 1 --steps_per_epoch 300 --start_steps 50 --update_after 50 --updates 20"
    flags += " --num_test_episodes 2 --threads 1 --num_runs 1 --compile on --exp_name x --data_dir"
    choices = [{}, {"OPENBLAS_CORETYPE": "Prescott", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}]
    for k, environ in enumerate(choices):
        python("i2q_ddpg.py", *flags.split(), str(tmp_path / str(k)), **environ)
    policies = [(tmp_path / str(k) / "x" / "x_s0" / "policy.safetensors").read_bytes() for k in range(2)]
    assert policies[0] == policies[1]


def test_batches_of_ever_new_sizes_take_no_ever_growing_memory():
    """As episodes of different lengths make them."""
    library = compiled()
    net = MLP.glorot((3, 8, 1), Streams((0,), "weights"), np.full(2, 3), np.ones(2))
    net.kernels = library
    for batch in range(1, 60):
        net(torch.randn(1, 2, batch, 3)).sum().backward()
    held = sum(part.numel() for parts in library.spare.values() for part in parts)
    assert held <= 2 * 8 * sum(range(60 - kernels.SIZES, 60))
