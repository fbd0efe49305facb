"""Policies in numpy act as the networks that were trained."""

import numpy as np
import pytest
import torch

import watch
from common.nets import MLP
from common.seeding import Streams


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_policy_file_is_watched_as_it_was_trained(activation, layer_norm):
    n_obs, n_act = np.array([3, 2]), np.array([2, 2])
    net = MLP.glorot([3, 6, 5, 2], Streams([4], "weights"), n_obs, n_act, activation=activation, layer_norm=layer_norm)
    with torch.no_grad():
        net.flat += 0.3 * torch.randn(net.flat.shape, generator=torch.Generator().manual_seed(0))
    tensors = {f"pi.{name}": part for name, part in net.named(0).items()}
    obs = np.random.default_rng(0).normal(size=(1, 2, 3)).astype(np.float32)
    trained = torch.tanh(net(torch.from_numpy(obs)[:, :, None]))[:, :, 0].detach().numpy()
    watched = watch.policy_of(tensors, np.ones((2, 2), np.float32))(obs)
    np.testing.assert_allclose(watched, trained, rtol=1e-5, atol=1e-6)
    assert np.abs(np.diff(trained)).max() > 0.01
