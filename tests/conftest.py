"""What every test is run under."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A slow or busy machine must not fail a property: what it says is about the code, not the clock.
settings.register_profile(
    "project", deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
settings.load_profile("project")
