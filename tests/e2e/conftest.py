"""Makes the fixtures of conftest_e2e known to the end-to-end tests."""

from conftest_e2e import image_environment, local_run, vertex_run

__all__ = ["image_environment", "local_run", "vertex_run"]
