import hashlib

import numpy as np

from components.quantization.calibration_set import CalibrationSet, fingerprint_of_arrays, sets_from_json, sets_json


def test_fingerprint_is_the_sum_of_the_hashes_of_the_examples() -> None:
    rows = np.array([[1.0, 2.0], [3.0, 4.0]], "float32")
    hashes = [hashlib.sha256(b"('x', '<f4', (2,))" + row.tobytes()).digest() for row in rows]
    expected = f"{sum(int.from_bytes(one, 'big') for one in hashes) % 2**256:064x}"
    assert fingerprint_of_arrays([{"x": rows}]) == expected
    assert fingerprint_of_arrays([{"x": rows[1:]}, {"x": rows[:1]}]) == expected  # other order, other batches


def test_fingerprint_differs_when_an_example_is_twice_there_or_a_value_is_another() -> None:
    rows = np.array([[1.0], [2.0]])
    words = np.array([[b"ab"], [b"c"]], object)
    others = [
        [{"x": rows}],
        [{"x": rows[[0, 0, 1]]}],
        [{"x": rows + 1e-15}],
        [{"y": rows}],
        [{"x": rows.astype("float32")}],
        [{"x": rows, "words": words}],
        [{"x": rows, "words": words[::-1]}],
    ]
    assert len({fingerprint_of_arrays(one) for one in others}) == len(others)


def test_sets_are_read_as_they_were_written() -> None:
    sets = (CalibrationSet(by="a", split="train", examples=3, chosen="x", seed=1, sha256="0" * 64, span=0),)
    assert sets_from_json(sets_json(sets)) == sets
    assert sets_from_json("") == ()
