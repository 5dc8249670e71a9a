#!/bin/sh
# From an empty folder to an app with login, a paid plan and a passing test:
#   sh try.sh FOLDER CHECKOUT
# FOLDER is created, CHECKOUT is a checkout of Nest. Needs Python 3.11 or later, and nothing else.
set -eu
[ $# -eq 2 ] || { echo "usage: sh try.sh FOLDER CHECKOUT" >&2; exit 64; }
began=$(date +%s)
took() { echo "try.sh: $1 after $(($(date +%s) - began)) s"; }
checkout=$(cd "$2" && pwd)
mkdir "$1"
cd "$1"
cp "$checkout/examples/fastapi/app.py" "$checkout/examples/fastapi/test_app.py" .
"${PYTHON:-python3}" -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check fastapi httpx pytest \
    "$checkout[embedded]" "$checkout/clients/python[fastapi]"
took "installed"
.venv/bin/python -m pytest -q test_app.py
took "tested $(cat app.py test_app.py | wc -l) lines of own code"
