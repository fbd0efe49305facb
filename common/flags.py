"""The range of a flag, as a part of its type: `gamma: Unit = 0.99`."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

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
            value = getattr(config, name)
            if isinstance(extra, Range) and not (extra.low <= value <= extra.high and math.isfinite(value)):
                above = f"finite, {extra.low} or more"
                limits = above if extra.high == math.inf else f"within {extra.low} .. {extra.high}"
                raise UsageError(f"--{name} {value}: must be {limits}")
