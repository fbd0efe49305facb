#!/usr/bin/env bash
# Every run behind every figure, from the table FIGURES in paper/figures.py: ./run_all.sh --help
set -eu
cd "$(dirname "$0")"
python=.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" -m paper.run_all "$@"
