"""A user's own task, of JPEGs, on a model that someone else trained: CIFAR-10 with MLPerf Tiny's ResNet8."""

import base64
import subprocess
import sys
from pathlib import Path

import cifar10_run
import pytest
import tensorflow as tf

from conftest_e2e import documents_of_report

_REPOSITORY = Path(__file__).parents[2]
_LIMIT_S = 3600


@pytest.mark.long
def test_cifar10_report_has_the_numbers_of_the_artifacts_and_the_images_that_flipped(
    shared: Path, tmp_path: Path
) -> None:
    asked = [sys.executable, "-W", "ignore", "-m", "tests.cifar10_run", str(tmp_path)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=_LIMIT_S, cwd=_REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    (beside,) = (tmp_path / "pushed").glob("*/report.html")
    assert beside.stat().st_size < 2_000_000
    page = beside.read_text(encoding="utf-8")
    held = documents_of_report(tmp_path, page)
    assert held["verdict"]["blessed"]
    overall = next(one for one in held["paired"]["paired"] if one["model"] == "float" and not one["slice"])
    assert overall["accuracy"]["value"] > 0.6
    (flips,) = held["flips"]["flips"]
    pictures = [one["picture"] for example in flips["examples"] for one in example["inputs"]]
    assert len(pictures) > 3
    for picture in pictures:
        assert picture in page
        assert tf.io.decode_png(base64.b64decode(picture.partition(",")[2])).shape == (32, 32, 3)
    for name in cifar10_run.LABELS:
        assert name in page
