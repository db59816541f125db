"""Plain code is usable without TFX, Beam and ML Metadata."""

import pkgutil
import subprocess
import sys

import pytest

import components

_HEAVY = ("tfx", "apache_beam", "ml_metadata", "tensorflow_transform", "tensorflow_model_analysis")


def _plain_modules() -> list[str]:
    folders = [info.name for info in pkgutil.iter_modules(components.__path__) if info.ispkg]
    found = [
        info.name
        for folder in folders
        for info in pkgutil.walk_packages([f"{components.__path__[0]}/{folder}"], f"components.{folder}.")
    ]
    return [f"components.{folder}" for folder in folders] + found


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_plain_modules_import_no_tfx() -> None:
    modules = _plain_modules()
    assert "components.quantization.conversion.convert" in modules
    imports = "; ".join(f"import {name}" for name in modules)
    heavy = _run(f"import sys; {imports}; print([name for name in {_HEAVY} if name in sys.modules])")
    assert heavy.strip() == "[]"


@pytest.mark.parametrize("module", ["components.quantization", "components.targets", "pipelines.configs.digits"])
def test_light_module_imports_no_tensorflow(module: str) -> None:
    assert _run(f"import sys, {module}; print('tensorflow' in sys.modules)").strip() == "False"
