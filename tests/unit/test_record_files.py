from pathlib import Path

import pytest
import tensorflow as tf

from components.quantization import record_files
from components.quantization.record_files import record_batches

_RECORDS = [bytes([number]) * (7 * number % 23) for number in range(4)]
_ENDS = [sum(len(record) + 16 for record in _RECORDS[:count]) for count in range(len(_RECORDS) + 1)]


def _write(file: Path, records: list[bytes]) -> bytes:
    with tf.io.TFRecordWriter(str(file), "GZIP" if file.suffix == ".gz" else "") as writer:
        for record in records:
            writer.write(record)
    return file.read_bytes()


def _read(file: Path) -> list[bytes]:
    return [record for batch in record_batches(str(file), 3) for record in batch]


@pytest.mark.parametrize("records", [_RECORDS, []])
@pytest.mark.parametrize("name", ["part", "part.gz"])
def test_record_batches_yields_all_records_when_the_file_is_whole(
    tmp_path: Path, name: str, records: list[bytes]
) -> None:
    _write(tmp_path / name, records)
    assert _read(tmp_path / name) == records
    assert [len(batch) for batch in record_batches(str(tmp_path / name), 3)] == ([3, 1] if records else [])


def test_record_batches_raises_wherever_a_file_is_cut_but_between_two_records(tmp_path: Path) -> None:
    whole = _write(tmp_path / "whole", _RECORDS)
    cut = tmp_path / "cut"
    for size in range(len(whole)):
        cut.write_bytes(whole[:size])
        if size in _ENDS:
            assert _read(cut) == _RECORDS[: _ENDS.index(size)]
            continue
        read = sum(end <= size for end in _ENDS) - 1
        with pytest.raises(ValueError, match=f"cut is corrupt after record {read}: .*; write it anew"):
            _read(cut)


def test_record_batches_raises_wherever_a_compressed_file_is_cut(tmp_path: Path) -> None:
    whole = _write(tmp_path / "whole.gz", _RECORDS)
    cut = tmp_path / "cut.gz"
    for size in range(len(whole)):
        cut.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="cut.gz is corrupt after record"):
            _read(cut)


def test_record_batches_reads_all_streams_of_a_compressed_file_and_raises_when_the_last_is_cut(tmp_path: Path) -> None:
    whole = _write(tmp_path / "one.gz", _RECORDS)
    (tmp_path / "two.gz").write_bytes(whole + whole)
    assert _read(tmp_path / "two.gz") == _RECORDS * 2
    (tmp_path / "two.gz").write_bytes(whole + whole[:-9])
    with pytest.raises(ValueError, match="two.gz is corrupt after record"):
        _read(tmp_path / "two.gz")


@pytest.mark.parametrize("name", ["part", "part.gz"])
def test_record_batches_raises_when_a_byte_is_another(tmp_path: Path, name: str) -> None:
    whole = bytearray(_write(tmp_path / name, _RECORDS))
    whole[len(whole) // 2] ^= 255
    (tmp_path / name).write_bytes(whole)
    with pytest.raises(ValueError, match=f"{name} is corrupt after record"):
        _read(tmp_path / name)


def test_record_batches_are_smaller_where_records_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_files, "_BATCH_BYTES", 10)
    records = [b"a", b"b" * 9, b"c", b"d" * 30, b"e" * 4, b"f" * 4, b"g" * 4, b"h"]
    with tf.io.TFRecordWriter(str(tmp_path / "records")) as writer:
        for record in records:
            writer.write(record)
    found = [batch.tolist() for batch in record_batches(str(tmp_path / "records"), 3)]
    assert found == [records[:2], records[2:3], records[3:4], records[4:6], records[6:]]
