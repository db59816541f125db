"""Where Vela is for the tests that run it, and what it wrote."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from components.targets.ethos_u import VelaOptions
from components.targets.ethos_u.program import find_vela


def require_vela() -> str:
    """Returns the path of Vela, which is part of the tests' environment."""
    found = find_vela(VelaOptions())
    assert found is not None, "there is no Vela: run `make setup`"
    return found.command[0]


def require_equal_to_csv(report: Mapping[str, Any], directory: Path) -> None:
    """Holds a report against the files that Vela wrote, read here by another reader.

    Args:
      report: The report's JSON.
      directory: Where TargetCompiler, or `compile`, kept what Vela wrote.
    """
    (summary,) = _rows(directory, "attempt_1_*_summary_*.csv")
    figures, number = report["measurements"], {name: float(v) for name, v in summary.items() if _is_number(v)}
    assert figures["cycles"] == number["cycles_total"] > 0
    assert figures["npu_cycles"] == number["cycles_npu"]
    assert figures["macs"] == number["nn_macs"]
    assert figures["encoded_weight_bytes"] == number["total_npu_encoded_weights"]
    assert figures["core_clock_hz"] == number["core_clock"]
    for area in ("sram", "dram", "on_chip_flash", "off_chip_flash"):
        assert figures[f"{area}_bytes"] == number[f"{area}_memory_used"] * 1024
        assert figures[f"{area}_traffic_bytes"] == number[f"{area}_total_bytes"]
        assert figures[f"{area}_access_cycles"] == number[f"cycles_{area}_access"]
        assert figures[f"{area}_bandwidth_bytes_per_second"] == number[f"{area}_bandwidth"] * 2**30
    latency = report["latency"]
    assert latency["kind"] == "estimated"
    assert latency["ms"] == pytest.approx(1000 * number["cycles_total"] / number["core_clock"])
    assert summary["memory_mode"] in latency["basis"]
    layers = _rows(directory, "attempt_1_*_per-layer.csv")
    assert len(report["layers"]) == len(layers) > 0
    for layer, row in zip(report["layers"], layers, strict=True):
        assert layer["name"] == row["Name"]
        assert layer["measurements"]["cycles"] == float(row["Op Cycles"])
        assert layer["measurements"]["macs"] == float(row["MAC Count"])
        assert layer["measurements"]["staging_bytes"] == float(row["Staging Usage"])
        assert layer["measurements"]["mac_utilization_percent"] == float(row["Util% (MAC)"])


def _rows(directory: Path, pattern: str) -> list[dict[str, str]]:
    (path,) = directory.glob(pattern)
    with path.open() as file:
        return list(csv.DictReader(file))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
