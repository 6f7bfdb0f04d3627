"""The program ends with its own exit code, whatever threads of its libraries are still about."""

import pytest


@pytest.mark.slow
def test_a_short_demo_ends_well_every_time(sessionlake):
    for _ in range(12):
        sessionlake("demo", "--sessions", "30")
        assert "terminate" not in sessionlake.stderr
