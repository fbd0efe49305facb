"""Whether an algorithm's file takes the flags of some commands. Nothing is trained.

    python -m common.dry_run i2q_ddpg.py < commands.json      # {experiment: [flags]}

Exit status 2, and one line, where it refuses some; else 0, also where the file cannot be imported: its runs will tell.
"""

import importlib
import json
import sys
from pathlib import Path

from common.errors import exit_status
from common.flags import parse


def main(script: Path, commands: dict[str, list[str]]) -> int:
    sys.path.insert(0, str(script.resolve().parent))  # as where the file itself is the program
    try:
        algorithm = importlib.import_module(script.stem)
        config, defaults = algorithm.Config, algorithm.defaults
    except (Exception, SystemExit):
        return 0
    for experiment, flags in commands.items():
        sys.argv = [str(script), *flags]
        try:
            parse(config, defaults, None, script.stem)
        except ValueError as error:
            if not exit_status(error):
                raise
            print(f"{experiment}: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), json.load(sys.stdin)))
