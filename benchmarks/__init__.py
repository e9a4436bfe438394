"""How fast, and beside what: asv suites (``bench_*.py``) and a side-by-side run (``compare``)."""
