"""Distances by TensorFlow Data Validation, against the same by NumPy."""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from sklearn.datasets import load_digits
from tensorflow_metadata.proto.v0 import statistics_pb2

from components import drift_statistics
from components.drift_statistics import Statistics
from components.evaluation.input_columns import InputColumns

_IMAGES = load_digits().images.astype("float32")


def _jensen_shannon(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """In bits, of two histograms over the same bins."""
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    terms = [np.where(one > 0, one * np.log2(np.where(one > 0, one, 1) / middle), 0) for one in (p, q)]
    return float(sum(term.sum() for term in terms) / 2)


def _rebinned(of: Statistics, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The standard histogram of the only feature over finer bins, each bucket's count spread evenly."""
    (histogram,) = [
        one for one in of.datasets[0].features[0].num_stats.histograms if one.type == statistics_pb2.Histogram.STANDARD
    ]
    counts = np.zeros(len(edges) - 1)
    for bucket in histogram.buckets:
        low, high = bucket.low_value, bucket.high_value
        overlap = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None)
        counts += bucket.sample_count * overlap / (high - low)
    return counts


def _edges(of: Statistics) -> list[float]:
    buckets = of.datasets[0].features[0].num_stats.histograms[0].buckets
    return [*(bucket.low_value for bucket in buckets), buckets[-1].high_value]


def _distances(new: Statistics, baseline: Statistics) -> dict[str, tuple[str, float]]:
    found = drift_statistics.distances(drift_statistics.drift_anomalies(new, baseline))
    return {one.feature: (one.measure, one.distance) for one in found}


def _strings(values: list[str]) -> Statistics:
    return tfdv.generate_statistics_from_dataframe(pd.DataFrame({"colour": values}))


def _of(images: npt.NDArray[np.float32]) -> Statistics:
    columns = InputColumns(["image"])
    columns.add({"image": images})
    return drift_statistics.of_columns(columns.columns)


def test_distance_of_numbers_is_the_jensen_shannon_divergence_of_their_histograms() -> None:
    generator = np.random.default_rng(3)
    columns = [generator.uniform(0, 10, (4000, 1)), generator.uniform(2.5, 12.5, (3000, 1))]
    first, second = (drift_statistics.of_columns({"x": one}) for one in columns)
    edges = np.unique([*_edges(first), *_edges(second)])
    expected = _jensen_shannon(_rebinned(first, edges), _rebinned(second, edges))
    assert _distances(second, first) == {"x": ("Jensen-Shannon divergence", pytest.approx(expected, abs=1e-6))}
    # Of the densities themselves: three quarters of each are shared, a quarter is not.
    assert expected == pytest.approx(0.25, abs=0.02)


def test_distance_of_numbers_is_1_when_no_value_is_shared_and_0_when_all_are() -> None:
    low, high = (drift_statistics.of_columns({"x": np.linspace(at, at + 1, 1000)[:, None]}) for at in (0, 100))
    assert _distances(high, low)["x"][1] == pytest.approx(1, abs=1e-3)
    assert _distances(low, low)["x"][1] == pytest.approx(0, abs=1e-9)


def test_distance_of_categories_is_the_greatest_difference_of_shares() -> None:
    # Of a 0.5 and 0.75, of b 0.5 and 0, of c 0 and 0.25.
    found = _distances(_strings(["a", "a", "a", "c"] * 25), _strings(["a", "b"] * 50))
    assert found == {"colour": ("L-infinity", pytest.approx(0.5))}


def test_images_in_another_order_have_not_drifted() -> None:
    order = np.random.default_rng(0).permutation(len(_IMAGES))
    found = _distances(_of(_IMAGES[order]), _of(_IMAGES))
    assert sorted(found) == ["image", "image/mean", "image/std"]
    # The quantile sketch that TFDV's histograms are from sees another order.
    assert max(distance for _, distance in found.values()) < 0.005


def test_inverted_images_have_drifted_in_values_and_brightness_and_not_in_contrast() -> None:
    found = {name: distance for name, (_, distance) in _distances(_of(16 - _IMAGES), _of(_IMAGES)).items()}
    means = np.concatenate([_IMAGES.mean(axis=(1, 2)), 16 - _IMAGES.mean(axis=(1, 2))])
    assert means[: len(_IMAGES)].max() < means[len(_IMAGES) :].min()  # not one is as bright as before
    assert found["image/mean"] > 0.99
    assert found["image"] > 0.1
    assert found["image/std"] < 0.005


def test_a_slight_brightening_shows_more_in_the_mean_of_images_than_in_their_pixels() -> None:
    # Pixels of deviation 1, and so means of 64 of deviation 1/8, of which the shift is 1.6.
    first, second = np.random.default_rng(1).normal(size=(2, 5000, 8, 8)).astype("float32")
    found = {name: distance for name, (_, distance) in _distances(_of(second + 0.2), _of(first)).items()}
    assert found["image"] < 0.03
    assert found["image/mean"] > 0.2
    assert found["image/std"] < 0.03


def test_features_that_one_side_lacks_have_no_distance() -> None:
    both = drift_statistics.of_columns({"x": np.ones((10, 1)), "y": np.ones((10, 1))})
    one = drift_statistics.of_columns({"x": np.ones((10, 1))})
    assert list(_distances(one, both)) == list(_distances(both, one)) == ["x"]


def test_columns_take_the_same_places_of_large_images_and_all_channels() -> None:
    images = np.zeros((2, 40, 40, 3), "float32") + np.array([0, 1, 2], "float32")
    columns = InputColumns(["image"])
    columns.add({"image": images})
    columns.add({"image": images[:1]})
    found = columns.columns
    assert found["image"].shape == (3, 256)
    np.testing.assert_array_equal(found["image"][0], found["image"][2])
    assert set(np.unique(found["image"])) == {0, 1, 2}
    assert found["image/mean"].ravel().tolist() == [1, 1, 1]  # of all values, not of those places
    np.testing.assert_allclose(found["image/std"].ravel(), np.sqrt(2 / 3))
