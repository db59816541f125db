"""Documents of a made-up run, as its artifacts would hold them: three classes, four layers, one op on the CPU."""

import copy
from typing import Any

# A gray pixel, as PNG.
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNoAAAAggCB2kUIOwAAAABJRU5ErkJggg=="
)
HOSTILE = "<script>alert('x')</script>$\\frac{1}{0}$\"&\u0001\u2713"


def _pair(model: str, cut: list[list[str]], difference: float, **further: Any) -> dict[str, Any]:
    accuracy = {"value": 0.75 + difference, "low": 0.6 + difference, "high": 0.9}
    return {
        "model": model,
        "output": "",
        "slice": cut,
        "examples": 40,
        "agreement": 0.925,
        "better": 1,
        "worse": 2,
        "difference": difference,
        "low": difference - 0.0625,
        "high": difference + 0.0625,
        "confidence": 0.95,
        "mcnemar_p": 1.0,
        "accuracy": accuracy,
        "other_accuracy": {"value": 0.75, "low": 0.6, "high": 0.9},
        "by_class": [
            {"examples": 20, "agreeing": 18, "better": 1, "worse": 1},
            {"examples": 15, "agreeing": 14, "better": 0, "worse": 1},
            {"examples": 5, "agreeing": 5, "better": 0, "worse": 0},
        ],
        **further,
    }


def _layer(name: str, sqnr_db: float | None, tensor: str = "t") -> dict[str, Any]:
    return {
        "name": name,
        "tensor": tensor,
        "sqnr_db": sqnr_db,
        "max_lsb": 1.5,
        "quantization_sqnr_db": 35.25,
        "saturation": 0.125,
        "utilisation": None,
        "bits": 8,
        "histogram": [0] * 15 + [7, 9] + [0] * 15,
    }


def _op(index: int, op: str, on_target: bool) -> dict[str, Any]:
    reason = "" if on_target else "It is not supported."
    status = "Mapped to Edge TPU" if on_target else "Operation not supported"
    return {
        "index": index,
        "op": op,
        "layer": f"layer_{index}",
        "on_target": on_target,
        "status": status,
        "reason": reason,
        "confidence": 1.0,
    }


_REASON = {
    "code": "value",
    "gate": "accuracy >= 0.8",
    "got": 0.725,
    "limit": 0.8,
    "slice": [["label", "1"]],
    "output": "",
    "examples": 40,
    "text": "accuracy is 0.7250, below 0.8",
}
_CONTRACT_END = {
    "name": "image",
    "dtype": "int8",
    "shape": [1, 8, 8, 1],
    "layout": "NHWC",
    "scale": 0.00390625,
    "zero_point": -128,
    "real_min": 0.0,
    "real_max": 0.99609375,
}
_DOCUMENTS: dict[str, Any] = {
    "verdict": {"blessed": False, "reasons": [{**_REASON, "code": "holds", "text": "holds: all"}, _REASON]},
    "smoke_test": {"blessed": True, "reasons": [{**_REASON, "code": "holds", "gate": "arena", "got": 22592.0}]},
    "measurements": {
        "metrics": [
            {"model": "integer", "output": "", "slice": [], "examples": 40, "metrics": {"accuracy": 0.725, "f1": None}},
            {"model": "float", "output": "", "slice": [], "examples": 40, "metrics": {"accuracy": 0.75}},
        ],
        "facts": {
            "latency_ms": 0.123456,
            "latency_host": "a CPU",
            "latency_kernels": "default kernels",
            "latency_threads": "1",
        },
        "last_blessed_left_out": [],
    },
    "paired": {
        "paired": [
            _pair("float", [], -0.025),
            _pair("last_blessed", [], 0.05),
            _pair("float", [["label", "0"]], -0.05),
            _pair("float", [["label", "1"], ["hour", "7"]], 0.0),
        ],
        "outputs": [],
        "labels": [],
    },
    "flips": {
        "flips": [
            {
                "output": "",
                "pairs": [
                    {"float": 0, "integer": 1, "examples": 2, "only_float_right": 1, "only_integer_right": 1},
                    {"float": 2, "integer": 0, "examples": 1, "only_float_right": 1, "only_integer_right": 0},
                ],
                "examples": [
                    {
                        "label": 2,
                        "float": {"class": 2, "score": 0.625},
                        "integer": {"class": 0, "score": 0.53125},
                        "margin": 0.375,
                        "inputs": [{"name": "image", "picture": PICTURE}, {"name": "age", "values": [0.5, 41.0]}],
                    },
                    {
                        "label": 1,
                        "float": {"class": 0, "score": 0.5},
                        "integer": {"class": 1, "score": 0.50390625},
                        "margin": 0.125,
                        "inputs": [{"name": "image", "picture": PICTURE}, {"name": "age", "values": [0.25] * 16}],
                    },
                ],
            }
        ]
    },
    "float_model": {"sha256": "f" * 64, "parent_sha256": "", "size_bytes": 175604},
    "integer_model": {
        "sha256": "a" * 64,
        "parent_sha256": "b" * 64,
        "size_bytes": 49536,
        "pipeline": "digits",
        "profile": "edge_tpu",
        "parent_eval_accuracy": 0.7375,
        "scheme": '{"name": "full_int8", "weight_bits": 8}',
        "tensorflow_version": "2.16.2",
    },
    "compiled_model": {"sha256": "c" * 64, "parent_sha256": "a" * 64, "size_bytes": 61440, "compiler": "a compiler"},
    "conversion": {
        "calibrated": ["one"],
        "calibration": "min_max",
        "examples": 300,
        "candidates": [{"method": "entropy", "score": 0.5, "error": ""}],
        "seconds": {"convert": 1.25},
        "cached": False,
        "rewrites": [{"name": "split", "op": "CONV_2D", "tensor": "x", "ops": []}],
        "calibration_sets": [
            {
                "by": "TFLiteIntConverter",
                "examples": 300,
                "split": "train",
                "artifact": 7,
                "span": None,
                "seed": 1,
                "chosen": "uniform",
                "sha256": "ab" * 32,
                "input_fingerprint": "",
            }
        ],
    },
    "drift": {
        "format": 1,
        "no_baseline": "",
        "unmeasured": "",
        "distances": [
            {"feature": "image", "against": "training examples", "measure": "L-infinity", "distance": 0.0625}
        ],
    },
    "representative": {
        "sample_examples": 300,
        "split_examples": 1444,
        "distances": [{"feature": "image", "against": "training examples", "measure": "m", "distance": 0.03125}],
        "inputs": {
            "image": {
                "sample": {"min": 0.0, "max": 0.75, "percentiles": {}},
                "split": {"min": -0.5, "max": 1.0, "percentiles": {}},
                "split_beyond_sample": 0.0125,
            }
        },
    },
    "audit": {
        "integer_only": True,
        "ready": False,
        "ops": 4,
        "offenders": [{"rule": "a-rule", "op": "ADD", "tensor": "x", "reason": "because", "fix": "mend it"}],
        "notes": [],
    },
    "attribution": {
        "layers": [
            _layer("conv", 41.25, "conv/out"),
            _layer("dense", 20.5),
            _layer("exact", None),
            _layer("relu", 33.0),
            _layer("softmax", 50.0),
            _layer("output scores", 10.0),
        ],
        "changes": [
            {
                "metric": "loss",
                "start": "float",
                "end": "fake-quant",
                "difference": 0.5,
                "standard_error": None,
                "cause": "x",
            }
        ],
        "unmatched": ["lost"],
        "compared_with": "fake-quant",
        "layer_kernels": "built-in optimized kernels",
        "first_diverging": "dense",
        "findings": ["output 'scores' is constant"],
    },
    "contract": {
        "inputs": [
            {
                **_CONTRACT_END,
                "preparation": {
                    "source": "pixels",
                    "kind": "affine",
                    "verified": {"count": 32, "method": "examples", "mismatches": 0},
                },
            }
        ],
        "outputs": [{**_CONTRACT_END, "name": "scores", "labels": ["cat", "dog", "emu"]}],
    },
    "compile_report": {
        "target": "edge_tpu",
        "compiled": True,
        "tool": "a compiler",
        "ops": [
            {"op": "CONV_2D", "count": 3, "on_target": True, "status": "Mapped to Edge TPU"},
            {"op": "CUMSUM", "count": 1, "on_target": False, "status": "Operation not supported"},
        ],
        "on_target": {"ops": 3, "macs": 641664, "parameters": 43050},
        "on_cpu": {"ops": 1, "macs": None, "parameters": 0},
        "first_breaking_op": {
            "index": 1,
            "op": "CUMSUM",
            "layer": "layer_1",
            "status": "Operation not supported",
            "reason": "",
            "edit": "Move it.",
        },
        "memory": {"cached_bytes": 45248, "streamed_bytes": 0, "arena_bytes": None, "basis": ""},
        "latency": {"ms": 0.75, "kind": "estimated", "basis": "a tool"},
        "problems": ["2 is not 3"],
    },
    "receipts": [
        {
            "rung": "float",
            "scheme": "float",
            "metrics": {"loss": 0.25},
            "size_bytes": 175604,
            "seconds": 12.5,
            "example_ms": 0.0,
            "accepted": False,
            "reasons": [],
        },
        {
            "rung": "ptq",
            "scheme": "full_int8",
            "metrics": {},
            "size_bytes": 0,
            "seconds": 0.0,
            "example_ms": 0.0,
            "accepted": False,
            "reasons": ["left out"],
        },
    ],
    "histories": {
        "float": {"loss": [1.5, 0.75, 0.5], "val_loss": [1.25, 1.0, 0.875]},
        "qat": {"loss": [0.5], "val_loss": [0.8125]},
    },
    "target_ops": [_op(0, "CONV_2D", True), _op(1, "CUMSUM", False), _op(2, "CONV_2D", False), _op(3, "CONV_2D", True)],
    "weights": [
        {
            "name": "conv",
            "tensor": "w",
            "values": 16,
            "low": -128,
            "high": 127,
            "histogram": [1, 2] + [0] * 29 + [13],
            "utilisation": 0.0625,
        }
    ],
    "examples": {"uri": "/data/examples", "span": 3},
}


def documents() -> dict[str, Any]:
    """The documents, the caller's own."""
    return copy.deepcopy(_DOCUMENTS)


def hostile(value: Any) -> Any:
    """The same documents with a hostile text in place of each, but for the words that mean something to the page."""
    kept = {"float", "integer", "last_blessed", "holds", "value", "arena", "edge_tpu"}
    if isinstance(value, dict):
        return {name: hostile(one) for name, one in value.items()}
    if isinstance(value, list):
        return [hostile(one) for one in value]
    return HOSTILE if isinstance(value, str) and value not in kept else value
