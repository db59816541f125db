"""Vela's figures: its summary and its table by layers, as it writes them in CSV.

The columns of version 5.2.0 are in https://pypi.org/project/ethos-u-vela/5.2.0/ ethosu/vela/stats_writer.py. A column
that is not known keeps its name.
"""

import csv
import io
import math
import re
from collections.abc import Mapping

from components.targets import LayerFigures

_KIB, _GIB = 2**10, 2**30
# By column of the summary: a name with its unit, and what a figure is multiplied with, by which no digit is lost.
_SUMMARY = {
    "core_clock": ("core_clock_hz", 1),
    "arena_cache_size": ("arena_cache_bytes", _KIB),
    "total_original_weights": ("original_weight_bytes", 1),
    "total_npu_encoded_weights": ("encoded_weight_bytes", 1),
    "inference_time": ("inference_seconds", 1),
    "nn_macs": ("macs", 1),
    "nn_tops": ("tera_ops_per_second", 1),
    "cycles_npu": ("npu_cycles", 1),
    "cycles_total": ("cycles", 1),
}
_SUMMARY_FAMILIES = (
    (re.compile(r"(\w+)_bandwidth"), r"\1_bandwidth_bytes_per_second", _GIB),
    (re.compile(r"(\w+)_memory_used"), r"\1_bytes", _KIB),
    (re.compile(r"(\w+)_total_bytes"), r"\1_traffic_bytes", 1),
    (re.compile(r"cycles_(\w+_access)"), r"\1_cycles", 1),
)
_LAYER = {
    "Staging Usage": "staging_bytes",
    "Peak% (Staging)": "staging_peak_percent",
    "Op Cycles": "cycles",
    "Network% (cycles)": "cycles_percent",
    "NPU": "npu_cycles",
    "SRAM AC": "sram_access_cycles",
    "DRAM AC": "dram_access_cycles",
    "OnFlash AC": "on_chip_flash_access_cycles",
    "OffFlash AC": "off_chip_flash_access_cycles",
    "MAC Count": "macs",
    "Network% (MAC)": "macs_percent",
    "Util% (MAC)": "mac_utilization_percent",
}
MOST_LAYERS = 2000
"""Rows of the table that a report keeps: an ARG_MAX of a large image alone becomes 65,000."""


def read_summary(files: Mapping[str, bytes]) -> dict[str, str]:
    """Returns the row of Vela's summary by its columns; empty if there is none.

    Args:
      files: What Vela wrote, by name.
    """
    content = next((content for name, content in files.items() if re.search(r"_summary_.*\.csv$", name)), b"")
    rows = list(csv.DictReader(io.StringIO(content.decode(errors="replace"))))
    return {str(name): str(value) for name, value in rows[-1].items()} if rows else {}


def measurements(summary: Mapping[str, str]) -> dict[str, float]:
    """Returns the figures of a summary by name with their unit; texts, and what is no number, are left out.

    >>> measurements({"sram_memory_used": "21.671875", "nn_tops": "nan", "memory_mode": "Shared_Sram"})
    {'sram_bytes': 22192.0}
    """
    found = {}
    for column, text in summary.items():
        value = _number(text)
        if value is not None:
            name, factor = _named(column)
            found[name] = value * factor
    return found


def read_layers(files: Mapping[str, bytes]) -> tuple[LayerFigures, ...]:
    """Returns the rows of Vela's table by layers, in its order; empty if there is none.

    Args:
      files: What Vela wrote, by name.
    """
    content = next((content for name, content in files.items() if name.endswith("_per-layer.csv")), b"")
    lines = content.decode(errors="replace").splitlines()
    columns = lines[0].split(",") if lines else []
    # Vela does not quote: only the name, the last column, may have commas.
    rows = [dict(zip(columns, line.split(",", len(columns) - 1), strict=False)) for line in lines[1:]]
    return tuple(
        LayerFigures(
            name=row.get("Name", ""),
            op=f"{row.get('Original Operator', '')}/{row.get('NNG Operator', '')} on {row.get('Target', '')}",
            measurements={
                name: value for column, name in _LAYER.items() if (value := _number(row.get(column, ""))) is not None
            },
        )
        for row in rows
    )


def slowest(layers: tuple[LayerFigures, ...], most: int = MOST_LAYERS) -> tuple[LayerFigures, ...]:
    """Returns the layers of most cycles, in the order of the table."""
    if len(layers) <= most:
        return layers
    by_cycles = sorted(range(len(layers)), key=lambda i: -layers[i].measurements.get("cycles", 0.0))
    return tuple(layers[i] for i in sorted(by_cycles[:most]))


def _named(column: str) -> tuple[str, int]:
    if column in _SUMMARY:
        return _SUMMARY[column]
    for pattern, name, factor in _SUMMARY_FAMILIES:
        if found := pattern.fullmatch(column):
            return found.expand(name), factor
    return column, 1


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
