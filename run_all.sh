#!/usr/bin/env bash
# Every run behind every figure, from the table FIGURES in paper/figures.py: ./run_all.sh --help
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=$here/.venv/bin/python
[ -x "$python" ] || python=python3
# not -m, which would look for modules in the folder it is called from; relative paths are relative to that one
program='import sys
sys.path = [sys.argv.pop(1), *filter(None, sys.path)]
from paper.run_all import main
sys.exit(main())'
exec "$python" -c "$program" "$here" "$@"
