"""requirements.lock and requirements-smax.lock are of the same versions."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def versions(lock: str) -> dict[str, set[str]]:
    """Every version that a lock names, by package; markers of platforms and Pythons left out."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / lock).read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split(" ;")[0].split("==")
            found.setdefault(name, set()).add(version)
    return found


def test_the_lock_of_smax_has_every_tested_version():
    tested, smax = versions("requirements.lock"), versions("requirements-smax.lock")
    moved = {name: (smax[name], tested[name]) for name in tested.keys() & smax.keys() if not smax[name] <= tested[name]}
    assert not moved, "run `make lock`, which remakes both"
    assert smax["torch"] == tested["torch"] and {"jax", "jaxmarl"} <= smax.keys()
