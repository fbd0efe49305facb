"""The measurements run, and compare what is the same."""

from bench import recurrent as bench


def test_every_learner_is_measured_against_its_naive_update():
    times = bench.updates(1, n_agents=2, longest=11)
    assert times.keys() == bench.LEARNERS.keys()
    assert all(ours > 0 and other > 0 for ours, other in times.values())


def test_steps_and_memory_are_measured():
    rate, length = bench.steps_per_second("FocusFire-3", 2, 0.05)
    assert rate > 0 and 2 < length < 20
    ours, padded = bench.memory_of(8, 205, 13, 100)
    assert ours < padded / 4
