"""What holds for all tests: a busy machine is no fault of the code."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Without deadlines: an example that waits for a processor, or a disk, is none that fails.
settings.register_profile("logstore", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("logstore")
