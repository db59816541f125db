import numpy as np
import pytest

from infra.bench.channel_spread import SPREAD, accuracy_of, fine_tuned, read_digits, spread, trained

pytestmark = pytest.mark.long


def test_depthwise_channels_spread_by_1000_lose_no_accuracy_in_integers() -> None:
    digits = read_digits(seed=1)
    model = spread(trained(digits, seed=1, epochs=6), "normalization", seed=1)
    largest = np.max(np.abs(model.get_layer("depthwise2").depthwise_kernel), axis=(0, 1, 3))
    assert np.max(largest) / np.min(largest) > SPREAD / 10
    accuracy = accuracy_of(model, digits)
    assert accuracy > 0.9
    quantized = fine_tuned(model, digits, seed=1, epochs=1)
    assert quantized.int8_accuracy >= accuracy - 0.02
    assert quantized.agreement >= 0.98
    in_training, in_file = zip(*quantized.scales.values(), strict=True)
    assert in_training == in_file
    assert quantized.scales["depthwise2"] == (64, 64)
