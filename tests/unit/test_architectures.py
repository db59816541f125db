import pytest

from infra.bench.architectures import PIXELS, measure

pytestmark = [pytest.mark.slow, pytest.mark.long]

_LEAST_DB = 25.0


@pytest.mark.parametrize("architecture", PIXELS)
def test_integers_agree_with_fake_quantization_on_random_images(architecture: str) -> None:
    found = measure(architecture)
    assert not found.blockers
    assert found.coverage == 1.0
    assert found.integer_only
    assert min(found.logits_db, found.probabilities_db) >= _LEAST_DB, found
