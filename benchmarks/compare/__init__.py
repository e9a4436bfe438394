"""logstore, its peers and the limits of the machine, side by side in one run.

``python -m benchmarks.compare --help``; what the table means stands in ``docs/performance.md``.
"""
