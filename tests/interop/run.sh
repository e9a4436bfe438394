#!/usr/bin/env bash
# Runs the suite in which Apache Kafka judges our files. Without Java 17 or Maven it says
# "INTEROP NOT RUN: <why>" and exits 0; a failed download or a failed test exits non-zero.
# PYTHON chooses the interpreter (logstore must be importable by it); further arguments go to pytest.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
python=${PYTHON:-python3}

"$python" tests/interop/kafka_jars.py >/dev/null
status=$?
if [ "$status" -eq 3 ]; then
    exit 0 # the line has been printed
elif [ "$status" -ne 0 ]; then
    exit "$status"
fi
# The project's default options leave this folder out; these replace them.
exec timeout -s INT -k 30 240 "$python" -m pytest -ra --strict-markers --strict-config \
    --disable-warnings -o addopts= tests/interop "$@"
