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


@pytest.mark.parametrize(
    "module",
    [
        "components.quantization",
        "components.quantization.conversion.audit",
        "components.quantization.conversion.flatbuffer",
        "components.targets",
        "pipelines.configs.digits",
        "pipelines.file_inspection",
    ],
)
def test_light_module_imports_no_tensorflow(module: str) -> None:
    assert _run(f"import sys, {module}; print('tensorflow' in sys.modules)").strip() == "False"


def test_schema_is_that_of_tensorflow_wherever_it_comes_from() -> None:
    ours = "from components.quantization.conversion.tflite_schema import schema as ours"
    theirs = "from tensorflow.lite.python import schema_py_generated as theirs"
    same = "print(vars(ours.BuiltinOperator).keys() == vars(theirs.BuiltinOperator).keys(), ours is theirs)"
    assert _run(f"{ours}; {theirs}; {same}").split() == ["True", "False"]
    assert _run(f"{theirs}; {ours}; {same}").split() == ["True", "True"]
