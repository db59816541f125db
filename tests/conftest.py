"""What several tests need."""

import os
from pathlib import Path

import pytest

# Before TensorFlow is imported: its C++ log is no test result.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

REPOSITORY = Path(__file__).parent.parent
SHARED = REPOSITORY.parent / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    """An option to write the goldens anew, to be looked at as a diff."""
    parser.addoption("--update-goldens", action="store_true", help="write tests/goldens anew")


@pytest.fixture
def shared() -> Path:
    """Reference data beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there: no reference models and compiler logs")
    return SHARED
