import os
from pathlib import Path

import pytest

from components.quantization.conversion import cache


def test_cache_drops_what_was_not_used_for_longest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_MOST", 2)
    for number, key in enumerate(("first", "second")):
        cache.write(tmp_path, key, key.encode(), {"of": key})
        os.utime(tmp_path / key, (1000 + number, 1000 + number))
    assert cache.read(tmp_path, "first") == (b"first", {"of": "first"})
    cache.write(tmp_path, "third", b"third", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "third"]
    assert cache.read(tmp_path, "second") is None
