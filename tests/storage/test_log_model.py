"""Programs of random steps against a list of records.

``LOGSTORE_MODEL_PROGRAMS`` sets how many programs run (400 if unset, which takes half a minute); for a long run:
``LOGSTORE_MODEL_PROGRAMS=20000 pytest tests/storage/test_log_model.py --timeout=0``.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from log_machine import LogMachine

PROGRAMS = int(os.environ.get("LOGSTORE_MODEL_PROGRAMS", "400"))

TestLogModel = pytest.mark.fault(2, "power loss")(pytest.mark.slow(LogMachine.TestCase))
TestLogModel.settings = settings(
    max_examples=PROGRAMS,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
