"""``python -m tests.crash``: what the tests do in seconds, at length, with counts. ``--help`` says more."""

import sys
from pathlib import Path

# The modules beside this one are tests' modules: found by their own name, as pytest finds them.
TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), *(str(TESTS / name) for name in ("crash", "storage", "clients", "format", "broker"))]

from long_runs import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
