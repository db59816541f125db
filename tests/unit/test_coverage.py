import json

import numpy as np
import pytest

from components.quantization.conversion.coverage import coverage, coverage_json


def test_coverage_has_the_ends_and_percentiles_of_sample_and_split() -> None:
    sample = [{"x": np.array([[0.0, 1.0], [2.0, 3.0]]), "label": np.array([1, 2])}]
    split = [{"x": np.array([[0.0, 1.0], [2.0, 3.0]])}, {"x": np.array([[-4.0, 10.0]])}]
    found = coverage(sample, split, ["x"])
    assert (found["sample_examples"], found["split_examples"]) == (2, 3)
    x = found["inputs"]["x"]
    assert (x["sample"]["min"], x["sample"]["max"], x["sample"]["percentiles"]["50"]) == (0.0, 3.0, 1.5)
    assert (x["split"]["min"], x["split"]["max"], x["split"]["percentiles"]["50"]) == (-4.0, 10.0, 1.5)
    assert x["split_beyond_sample"] == pytest.approx(2 / 6)  # -4 and 10
    assert list(found["inputs"]) == ["x"]
    text = json.loads(coverage_json(found, "train", 7))
    assert (text["split"], text["seed"], text["inputs"]) == ("train", 7, found["inputs"])


def test_coverage_counts_every_value_and_thins_only_percentiles() -> None:
    values = np.zeros((1, 5000))
    values[0, 4999] = 100.0  # no multiple of 5
    x = coverage([{"x": values}], [{"x": values + 1}], ["x"])["inputs"]["x"]
    assert (x["sample"]["max"], x["sample"]["percentiles"]["99.9"]) == (100.0, 0.0)
    assert x["split_beyond_sample"] == pytest.approx(1 / 5000)  # 101; 1 is within 0..100


def test_coverage_takes_indices() -> None:
    words = {"words": np.array([[1, 5], [2, 2]], np.int64)}
    assert coverage([words], [words], ["words"])["inputs"]["words"]["split"]["max"] == 5.0
