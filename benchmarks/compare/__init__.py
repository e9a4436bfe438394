"""logstore, its peers and the limits of this machine, side by side in one run.

``python -m benchmarks.compare --help``; what the table means stands in ``docs/performance.md``.

To add a work, write a `measure.Work` into a file of ``works/``: a name, a line above its table, and its contestants,
logstore's first. A contestant is a name, a kind and a context manager over a `measure.Place`: entering it prepares; what it
yields does one round, checks its result, and gives a `measure.Measured`. What is asked of it is a `targets.Target`.
"""
