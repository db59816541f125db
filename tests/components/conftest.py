"""Makes the fixtures of conftest_components known to the tests of components."""

from conftest_components import channel, standard, trained, trainer

__all__ = ["channel", "standard", "trained", "trainer"]
