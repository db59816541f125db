"""The ops that TensorFlow Lite for Microcontrollers has, by the calls that register them with a program.

https://github.com/tensorflow/tflite-micro/blob/0cc6f983266d1bd6f5d66f485c546e8cc80ad6a2/tensorflow/lite/micro/micro_mutable_op_resolver.h
"""

from collections.abc import Iterable

from components.targets._operation import Operation

# Calls by what they register; the rest is what `_call` makes of the name.
_IRREGULAR = {
    "AVERAGE_POOL_2D": "AddAveragePool2D",
    "BATCH_MATMUL": "AddBatchMatMul",
    "CONV_2D": "AddConv2D",
    "CUMSUM": "AddCumSum",
    "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
    "L2_POOL_2D": "AddL2Pool2D",
    "MAX_POOL_2D": "AddMaxPool2D",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}
_BUILTINS = """
ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_ARGS
BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV
DYNAMIC_UPDATE_SLICE EMBEDDING_LOOKUP ELU EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER
GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND
LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MIRROR_PAD MEAN MINIMUM MUL NEG NOT_EQUAL PACK PAD
PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR
RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH
SPLIT SPLIT_V SQUEEZE SQRT SQUARE SQUARED_DIFFERENCE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE_CONV TRANSPOSE UNPACK
UNIDIRECTIONAL_SEQUENCE_LSTM VAR_HANDLE WHILE ZEROS_LIKE
"""
_CUSTOM = {
    "BasicClassifier": "AddBasicClassifier",
    "CIRCULAR_BUFFER": "AddCircularBuffer",
    "SignalDelay": "AddDelay",
    "SignalEnergy": "AddEnergy",
    "SignalFftAutoScale": "AddFftAutoScale",
    "SignalFilterBank": "AddFilterBank",
    "SignalFilterBankLog": "AddFilterBankLog",
    "SignalFilterBankSpectralSubtraction": "AddFilterBankSpectralSubtraction",
    "SignalFilterBankSquareRoot": "AddFilterBankSquareRoot",
    "SignalFramer": "AddFramer",
    "SignalIrfft": "AddIrfft",
    "SignalOverlapAdd": "AddOverlapAdd",
    "SignalPCAN": "AddPCAN",
    "SignalRfft": "AddRfft",
    "SignalStacker": "AddStacker",
    "SignalWindow": "AddWindow",
    "TFLM_DECODE": "AddDecode",
    "TFLite_Detection_PostProcess": "AddDetectionPostprocess",
    "ethos-u": "AddEthosU",
}


def _call(code: str) -> str:
    return _IRREGULAR.get(code) or "Add" + "".join(word.capitalize() for word in code.split("_"))


CALLS = {code: _call(code) for code in _BUILTINS.split()}


def call(operation: Operation) -> str | None:
    """Returns the call that registers an op; None if there is none.

    >>> CALLS["RESIZE_NEAREST_NEIGHBOR"], CALLS["PADV2"]
    ('AddResizeNearestNeighbor', 'AddPadV2')
    """
    custom = operation.op.custom_code
    return _CUSTOM.get(custom) if operation.code == "CUSTOM" else CALLS.get(operation.code)


def resolver_header(operations: Iterable[Operation], guard: str) -> str:
    """Returns a C++ header with a function that registers the ops of a model, and no other.

    Args:
      operations: The ops, of all subgraphs.
      guard: Name of the macro that guards the header.
    """
    calls = sorted({name for operation in operations if (name := call(operation))})
    missing = sorted({operation.op.name for operation in operations if call(operation) is None})
    lines = "\n".join(f"  if (resolver.{name}() != kTfLiteOk) return kTfLiteError;" for name in calls)
    comments = "".join(f"// No kernel of TFLite Micro: {_comment(name)}\n" for name in missing)
    return f"""#ifndef {guard}
#define {guard}

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

{comments}using ModelOpResolver = tflite::MicroMutableOpResolver<{max(len(calls), 1)}>;

inline TfLiteStatus RegisterModelOps(ModelOpResolver& resolver) {{
{lines}
  return kTfLiteOk;
}}

#endif  // {guard}
"""


def _comment(name: str) -> str:
    """The name of an op, from a file, so that it cannot end the comment."""
    return "".join(character if character.isprintable() and character != "\\" else "?" for character in name)
