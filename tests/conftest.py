"""What several tests need."""

import os
import random
import sys
import zlib
from pathlib import Path

import numpy as np
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


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Seeds what models draw their weights from by the test's name: a test sees the same in every run."""
    seed = zlib.crc32(item.nodeid.encode()) // 2
    random.seed(seed)
    np.random.seed(seed)
    # The two draw other weights, so that a model made anew in the other has not the same by chance.
    for further, name in enumerate(("tf_keras", "keras")):
        if name in sys.modules:
            sys.modules[name].utils.set_random_seed(seed + further)
