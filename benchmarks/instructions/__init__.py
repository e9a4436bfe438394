"""Instructions a record of the hot paths, counted by callgrind: a figure that no noisy machine hides.

``python -m benchmarks.instructions --help``; how to read it stands in ``docs/performance.md``.
"""
