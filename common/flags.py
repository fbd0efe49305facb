"""The range of a flag, as a part of its type: `gamma: Unit = 0.99`."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

from common import limits
from common.errors import UsageError


@dataclass(frozen=True)
class Range:
    """A closed range; the type of a flag may carry one, as Annotated[int, Range(1)]."""

    low: float
    high: float = math.inf


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
NonNegative = Annotated[float, Range(0)]
Unit = Annotated[float, Range(0, 1)]


def check_ranges(config: Any) -> None:
    """Raise UsageError for a flag outside the range of its type, or not finite."""
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        for extra in getattr(hint, "__metadata__", ()):
            if isinstance(extra, Range):
                within(config, **{name: (extra.low, extra.high)})


def within(config: Any, **ranges: tuple[float, float]) -> None:
    """Raise UsageError for a flag outside of its closed range."""
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if high == math.inf and value > limits.LARGEST and value != math.inf:
            raise UsageError(f"--{name} {value}: must be {limits.LARGEST} at most")
        if not (low <= value <= high and value != math.inf):
            text = f"finite, {low} or more" if high == math.inf else f"within {low} .. {high}"
            raise UsageError(f"--{name} {value}: must be {text}")
