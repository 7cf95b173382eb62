# SPDX-License-Identifier: Apache-2.0
"""What all tests share."""

from hypothesis import HealthCheck, settings

# Time is judged in benchmarks/, never in a test.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")
