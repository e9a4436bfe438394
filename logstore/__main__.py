"""``python -m logstore``: the command line."""

import sys

from logstore.cli import main

if __name__ == "__main__":
    sys.exit(main())
