import hashlib
import random

import pytest
import tensorflow as tf

from components.quantization import records


def _example(number: int, *, reverse: bool = False) -> bytes:
    """A tf.Example with two features, which a map may serialize in any order."""
    parts = []
    for name in ("b", "a") if reverse else ("a", "b"):
        example = tf.train.Example()
        example.features.feature[name].int64_list.value.append(number)
        parts.append(example.SerializeToString())
    # Serialized Features are concatenated by merging their map entries; a tf.Example is one such field.
    merged = tf.train.Example.FromString(parts[0])
    merged.MergeFromString(parts[1])
    return merged.SerializeToString()


def test_shuffled_depends_on_content_and_seed_alone() -> None:
    examples = [_example(number) for number in range(50)]
    once = records.shuffled(examples, seed=1)
    random.Random(7).shuffle(examples)
    assert records.shuffled([_example(n, reverse=True) for n in range(50)], seed=1) == once
    assert records.shuffled(examples, seed=1) == once
    assert records.shuffled(examples, seed=2) != once
    assert sorted(once) == sorted(records.shuffled(examples, seed=2))


def test_sampled_is_the_same_whatever_the_order() -> None:
    examples = [_example(number) for number in range(50)]
    sample = records.sampled(iter(examples), 10, seed=3)
    assert sample == records.sampled(reversed(examples), 10, seed=3)
    assert len(set(sample)) == 10
    assert sample != records.sampled(examples, 10, seed=4)


@pytest.mark.parametrize(("limit", "taken"), [(0, 1), (10, 2), (19, 2), (20, 3), (1000, 5)])
def test_read_up_to_stops_beyond_the_limit_and_loses_nothing(limit: int, taken: int) -> None:
    unread = iter([b"0123456789"] * 5)
    assert len(records.read_up_to(unread, limit)) == taken
    assert len(list(unread)) == 5 - taken


def test_fingerprint_is_the_sum_of_hashes_whatever_the_order_of_records_and_features() -> None:
    examples = [_example(number) for number in range(20)]
    hashes = [
        hashlib.sha256(tf.train.Example.FromString(one).SerializeToString(deterministic=True)) for one in examples
    ]
    expected = f"{sum(int(one.hexdigest(), 16) for one in hashes) % 2**256:064x}"
    assert records.fingerprint(examples) == expected
    assert records.fingerprint(reversed([_example(n, reverse=True) for n in range(20)])) == expected
    assert records.fingerprint([*examples, examples[0]]) != expected
    assert records.fingerprint(examples[1:]) != expected
