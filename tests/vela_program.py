"""Where Vela is for the tests that run it: by the variable, on PATH, or where `make vela` puts it."""

import os
import shutil
from pathlib import Path

import pytest

from components.targets.ethos_u import VARIABLE

_OURS = Path(__file__).parent.parent / ".vela" / "bin" / "vela"


def require_vela() -> str:
    """Returns the path of Vela; skips the test where there is none."""
    found = shutil.which(os.environ.get(VARIABLE) or "vela") or (str(_OURS) if _OURS.is_file() else None)
    if found is None:
        pytest.skip("there is no Vela: run `make vela`, or say with TFX_QAT_VELA where it is")
    return found
