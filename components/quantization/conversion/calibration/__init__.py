"""Calibration beyond min/max: narrower ranges for 8-bit activations, taken only where measured accuracy gains.

TensorFlow's converter quantizes with the smallest and largest value that it saw, so one outlier widens the steps of all
other values. Here the ranges of a file that it calibrated are replaced by others, of which there are

- "min_max", the converter's own, which leaves the file as it is,
- "percentile_P", 50 < P < 100, for example "percentile_99.9": the range that leaves out 100 - P percent of the values
  at each end, and
- "mse", the range with the smallest mean squared quantization error.

Activations of 16 bits stay with min/max: their 65,536 steps leave no reason to clip, and TensorFlow's converter takes
no edited ranges for them.
"""

from components.quantization.conversion.calibration.choice import Choice, MethodScore, choose
from components.quantization.conversion.calibration.methods import CalibrationMethod, load_method
from components.quantization.conversion.calibration.recalibration import recalibrated

__all__ = [
    "AUTO",
    "METHODS",
    "MIN_MAX",
    "CalibrationMethod",
    "Choice",
    "MethodScore",
    "choose",
    "load_method",
    "recalibrated",
]

MIN_MAX = "min_max"
AUTO = "auto"  # in place of a method: the one with the best score
# What is worth trying, the plainest first.
METHODS = (MIN_MAX, "percentile_99.99", "percentile_99.9", "mse")
