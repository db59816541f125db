"""Makes the fixtures of conftest_e2e known to the end-to-end tests."""

from conftest_e2e import local_run

__all__ = ["local_run"]
