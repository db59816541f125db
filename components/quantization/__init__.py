"""Integers from floats: plan, train, convert and prove. Plain Python; imports neither TFX nor Beam.

>>> import tf_keras
>>> from components.quantization import audit, convert, plan
>>> model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
>>> plan(model).coverage
1.0
>>> audit(convert(model, representative_dataset=[[[0.0, 0.5, 1.0]]]), profile="edge_tpu").offenders
()
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.quantization.attribution.attribute import attribute
    from components.quantization.attribution.kernel_agreement import kernel_agreement
    from components.quantization.attribution.report import Attribution
    from components.quantization.conversion.audit import Audit, audit
    from components.quantization.conversion.convert import convert, convert_with_report
    from components.quantization.qat.parity import parity
    from components.quantization.qat.plan import QuantizationPlan, plan
    from components.quantization.qat.quantize import quantize_model
    from components.quantization.surgery.cut import Cut, cut
    from components.quantization.surgery.fixed_shapes import fix_input_shapes

__all__ = [
    "Attribution",
    "Audit",
    "Cut",
    "QuantizationPlan",
    "attribute",
    "audit",
    "convert",
    "convert_with_report",
    "cut",
    "fix_input_shapes",
    "kernel_agreement",
    "parity",
    "plan",
    "quantize_model",
]

_HOMES = {
    "Attribution": "components.quantization.attribution.report",
    "attribute": "components.quantization.attribution.attribute",
    "convert_with_report": "components.quantization.conversion.convert",
    "Cut": "components.quantization.surgery.cut",
    "cut": "components.quantization.surgery.cut",
    "fix_input_shapes": "components.quantization.surgery.fixed_shapes",
    "kernel_agreement": "components.quantization.attribution.kernel_agreement",
    "Audit": "components.quantization.conversion.audit",
    "QuantizationPlan": "components.quantization.qat.plan",
    "audit": "components.quantization.conversion.audit",
    "convert": "components.quantization.conversion.convert",
    "parity": "components.quantization.qat.parity",
    "plan": "components.quantization.qat.plan",
    "quantize_model": "components.quantization.qat.quantize",
}


def __getattr__(name: str) -> Any:
    """Imports on first use: TensorFlow takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
