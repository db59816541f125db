"""Constructed models, each with every offender that an audit finds in it."""

import numpy as np

import audit_changes as changes
import audited_models as models

# An offender: rule, place (subgraph and, behind a colon, op), name of the op, tensor, Keras layer.
Offenders = list[tuple[str, str, str, str, str]]

_CONV = "net/conv/Relu;net/conv/Conv2D"
_POOL = "net/pool/MaxPool"
_FLAT = "net/flat/Reshape"
_DENSE = "FULLY_CONNECTED"
_LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
_FLOAT = ("FLOAT32", 0.0, 0)


def _i8(scale: float = 0.5, zero: int = 0) -> tuple[str, float, int]:
    return "INT8", scale, zero


CASES: dict[str, tuple[bytes, Offenders]] = {
    "sound": (models.sound(), []),
    "float": (
        models.one_op("RELU", [_FLOAT, _FLOAT]),
        [
            ("float-edge", "0", "input", "in0", ""),
            ("float-edge", "0", "output", "out1", ""),
            ("float-tensor", "0:0", "RELU", "in0", ""),
            ("float-tensor", "0:0", "RELU", "out1", ""),
        ],
    ),
    "float input": (
        models.one_op("QUANTIZE", [_FLOAT, _i8()]),
        [("float-edge", "0", "input", "in0", ""), ("float-tensor", "0:0", "QUANTIZE", "in0", "")],
    ),
    "float output": (
        models.one_op("DEQUANTIZE", [_i8(), _FLOAT]),
        [
            ("float-edge", "0", "output", "out1", ""),
            ("dequantize", "0:0", "DEQUANTIZE", "", ""),
            ("float-tensor", "0:0", "DEQUANTIZE", "out1", ""),
        ],
    ),
    "float fallback": (
        models.typed(_POOL, "FLOAT32"),
        [("float-tensor", "0:1", "MAX_POOL_2D", _POOL, "pool"), ("float-tensor", "0:2", "RESHAPE", _POOL, "pool")],
    ),
    "float16": (
        models.typed(_POOL, "FLOAT16"),
        [("float-tensor", "0:1", "MAX_POOL_2D", _POOL, "pool"), ("float-tensor", "0:2", "RESHAPE", _POOL, "pool")],
    ),
    "text": (
        models.typed(_POOL, "STRING"),
        [("float-tensor", "0:1", "MAX_POOL_2D", _POOL, "pool"), ("float-tensor", "0:2", "RESHAPE", _POOL, "pool")],
    ),
    "complex": (
        models.typed(_POOL, "COMPLEX64"),
        [("float-tensor", "0:1", "MAX_POOL_2D", _POOL, "pool"), ("float-tensor", "0:2", "RESHAPE", _POOL, "pool")],
    ),
    "handle without state": (
        models.typed(_POOL, "RESOURCE"),
        [("float-tensor", "0:1", "MAX_POOL_2D", _POOL, "pool"), ("float-tensor", "0:2", "RESHAPE", _POOL, "pool")],
    ),
    "hybrid": (
        models.dense(2, 4, source="FLOAT32"),
        [
            ("float-edge", "0", "input", "x", ""),
            ("float-edge", "0", "output", "y", ""),
            ("hybrid-op", "0:0", "FULLY_CONNECTED", "", ""),
            ("float-tensor", "0:0", "FULLY_CONNECTED", "x", ""),
            ("float-tensor", "0:0", "FULLY_CONNECTED", "y", ""),
        ],
    ),
    "float weights": (
        models.typed("dense/bias", "FLOAT32"),
        [
            ("hybrid-op", "0:3", "FULLY_CONNECTED", "", "dense"),
            ("float-constant", "0:3", "FULLY_CONNECTED", "dense/bias", "dense"),
            ("bias-type", "0:3", "FULLY_CONNECTED", "dense/bias", "dense"),
        ],
    ),
    "float constant of no op": (
        models.edited(changes.float_constant),
        [("float-constant", "0", "unused", "left/over", "left")],
    ),
    "empty optional tensor": (models.edited(changes.empty_float), []),
    "LSTM": (models.lstm(), []),
    "fake quantization": (models.one_op("FAKE_QUANT", [_i8(), _i8()]), [("fake-quant", "0:0", "FAKE_QUANT", "", "")]),
    "flex": (models.one_op("FlexErf", [_i8(), _i8()]), [("flex-op", "0:0", "CUSTOM FlexErf", "", "")]),
    "custom": (models.one_op("MyOp", [_i8(), _i8()]), [("custom-op", "0:0", "CUSTOM MyOp", "", "")]),
    "StableHLO": (models.one_op("STABLEHLO_TANH", [_i8(), _i8()]), [("stablehlo-op", "0:0", "STABLEHLO_TANH", "", "")]),
    "int32 result": (models.typed(_CONV, "INT32"), [("unquantized-result", "0:0", "CONV_2D", _CONV, "conv")]),
    "int32 shape arithmetic": (models.one_op("ADD", [("INT32", 0.0, 0)] * 3, inputs=2), []),
    "arg max": (models.one_op("ARG_MAX", [_i8(), ("INT32", 0.0, 0)]), []),
    "comparison": (models.one_op("LESS", [_i8(), _i8(), ("BOOL", 0.0, 0)], inputs=2), []),
    "16x8": (models.dense(2, 4, source="INT16", bias_dtype="INT64"), []),
    "16x8 with int32 bias": (models.dense(2, 4, source="INT16"), []),
    "8-bit with int64 bias": (
        models.dense(2, 4, bias_dtype="INT64"),
        [("bias-type", "0:0", "FULLY_CONNECTED", "b", "")],
    ),
    "control flow": (models.branches("INT8"), []),
    "float branch": (
        models.branches("FLOAT32"),
        [
            ("float-edge", "2", "input", "FLOAT32/a", "FLOAT32"),
            ("float-edge", "2", "output", "FLOAT32/b", "FLOAT32"),
            ("float-tensor", "2:0", "RELU", "FLOAT32/a", "FLOAT32"),
            ("float-tensor", "2:0", "RELU", "FLOAT32/b", "FLOAT32"),
        ],
    ),
    "bias scale": (
        models.quantized("conv/bias", scale=(0.05, 0.2, 0.2)),
        [("bias-scale", "0:0", "CONV_2D", "conv/bias", "conv")],
    ),
    "bias scale count": (
        models.quantized("conv/bias", scale=(0.05, 0.1), zero=(0, 0)),
        [("scale-count", "0:0", "CONV_2D", "conv/bias", "conv"), ("bias-scale", "0:0", "CONV_2D", "conv/bias", "conv")],
    ),
    "shared bias of zeros": (models.edited(changes.shared_zero_bias), []),
    "bias zero point": (
        models.quantized("dense/bias", zero=(3,)),
        [("bias-zero-point", "0:3", "FULLY_CONNECTED", "dense/bias", "dense")],
    ),
    "bias range": (
        models.filled("dense/bias", 2**30 + 2**21, np.int32),
        [("bias-range", "0:3", "FULLY_CONNECTED", "dense/bias", "dense")],
    ),
    # 127 * 128 * 132104 = 2147482624 is below 2**31 = 2147483648, one more is not.
    "accumulator": (models.dense(1, 132105), [("accumulator", "0:0", "FULLY_CONNECTED", "w", "")]),
    "accumulator at its limit": (models.dense(1, 132104), []),
    "weight zero point": (
        models.quantized("dense/kernel", zero=(1,)),
        [("weight-zero-point", "0:3", "FULLY_CONNECTED", "dense/kernel", "dense")],
    ),
    "weight of -128": (
        models.filled("dense/kernel", -128),
        [("weight-range", "0:3", "FULLY_CONNECTED", "dense/kernel", "dense")],
    ),
    "scale axis": (
        models.quantized("dense/kernel", scale=[0.1] * 12, zero=[0] * 12, axis=1),
        [("scale-axis", "0:3", "FULLY_CONNECTED", "dense/kernel", "dense")],
    ),
    "scale count": (
        models.quantized("conv/kernel", scale=(0.1, 0.2), zero=(0, 0)),
        [
            ("scale-count", "0:0", "CONV_2D", "conv/kernel", "conv"),
            ("bias-scale", "0:0", "CONV_2D", "conv/bias", "conv"),
        ],
    ),
    "zero point count": (
        models.quantized("conv/kernel", zero=(0,)),
        [("scale-count", "0:0", "CONV_2D", "conv/kernel", "conv")],
    ),
    "quantized dimension out of range": (
        models.quantized("conv/kernel", axis=9),
        [
            ("scale-count", "0:0", "CONV_2D", "conv/kernel", "conv"),
            ("scale-axis", "0:0", "CONV_2D", "conv/kernel", "conv"),
        ],
    ),
    "scale of 0": (
        models.quantized("net/dense/BiasAdd", scale=(0.0,)),
        [
            ("scale-value", "0:3", "FULLY_CONNECTED", "net/dense/BiasAdd", "dense"),
            ("scale-value", "0:4", "SOFTMAX", "net/dense/BiasAdd", "dense"),
        ],
    ),
    "infinite scale": (
        models.quantized("net/dense/BiasAdd", scale=(float("inf"),)),
        [
            ("scale-value", "0:3", "FULLY_CONNECTED", "net/dense/BiasAdd", "dense"),
            ("scale-value", "0:4", "SOFTMAX", "net/dense/BiasAdd", "dense"),
        ],
    ),
    "scale that is not a number": (
        models.quantized("net/dense/BiasAdd", scale=(float("nan"),)),
        [
            ("scale-value", "0:3", "FULLY_CONNECTED", "net/dense/BiasAdd", "dense"),
            ("scale-value", "0:4", "SOFTMAX", "net/dense/BiasAdd", "dense"),
        ],
    ),
    "scale below the floor": (
        models.quantized("net/dense/BiasAdd", scale=(1e-40,)),
        [
            ("scale-value", "0:3", "FULLY_CONNECTED", "net/dense/BiasAdd", "dense"),
            ("scale-value", "0:4", "SOFTMAX", "net/dense/BiasAdd", "dense"),
        ],
    ),
    "zero point of int8": (
        models.quantized("net/dense/BiasAdd", zero=(128,)),
        [
            ("zero-point", "0:3", "FULLY_CONNECTED", "net/dense/BiasAdd", "dense"),
            ("zero-point", "0:4", "SOFTMAX", "net/dense/BiasAdd", "dense"),
        ],
    ),
    "zero point of int16": (
        models.one_op("RELU", [("INT16", 0.5, 0), ("INT16", 0.5, 1)]),
        [("zero-point", "0:0", "RELU", "out1", "")],
    ),
    "missing scale": (models.one_op("TANH", [_i8(), ("INT8", 0.0, 0)]), [("missing-scale", "0:0", "TANH", "out1", "")]),
    "same scale": (
        models.quantized("net/flat/Reshape", scale=(0.5,)),
        [("same-scale", "0:2", "RESHAPE", _POOL, "pool")],
    ),
    "concatenation": (
        models.one_op("CONCATENATION", [_i8(), _i8(0.25), _i8()], inputs=2),
        [("same-scale", "0:0", "CONCATENATION", "in1", "")],
    ),
    "concatenation of uint8": (
        models.one_op("CONCATENATION", [("UINT8", 0.5, 3), ("UINT8", 0.25, 7), ("UINT8", 0.5, 3)], inputs=2),
        [],
    ),
    "softmax": (models.quantized("y", zero=(0,)), [("fixed-scale", "0:4", "SOFTMAX", "y", "")]),
    "sigmoid": (
        models.one_op("LOGISTIC", [_i8(), _i8(1 / 128, -128)]),
        [("fixed-scale", "0:0", "LOGISTIC", "out1", "")],
    ),
    "tanh of uint8": (models.one_op("TANH", [("UINT8", 0.5, 3), ("UINT8", 1 / 128, 128)]), []),
    "tanh of int16": (
        models.one_op("TANH", [("INT16", 0.5, 0), ("INT16", 1 / 128, 0)]),
        [("fixed-scale", "0:0", "TANH", "out1", "")],
    ),
    "log softmax": (models.one_op("LOG_SOFTMAX", [_i8(), _i8(1 / 16, 127)]), []),
    "L2 normalization": (
        models.one_op("L2_NORMALIZATION", [_i8(), _i8(1 / 256)]),
        [("fixed-scale", "0:0", "L2_NORMALIZATION", "out1", "")],
    ),
    "addition below its limit": (models.one_op("ADD", [_i8(2.0**18), _i8(), _i8(1.0)], inputs=2), []),
    "addition": (
        models.one_op("ADD", [_i8(2.0**19), _i8(), _i8(1.0)], inputs=2),
        [("multiplier", "0:0", "ADD", "out2", "")],
    ),
    "dynamic batch": (models.edited(changes.dynamic), [("dynamic-shape", "0:1", "MAX_POOL_2D", _POOL, "pool")]),
    "constant size": (
        models.edited(changes.short),
        [("constant-size", "0:3", "FULLY_CONNECTED", "dense/bias", "dense")],
    ),
    "int8 with float edges": (
        models.float_edges(),
        [
            ("float-edge", "0", "input", "x", ""),
            ("float-edge", "0", "output", "y", ""),
            ("float-tensor", "0:0", "QUANTIZE", "x", ""),
            ("dequantize", "0:2", "DEQUANTIZE", "", ""),
            ("float-tensor", "0:2", "DEQUANTIZE", "y", ""),
        ],
    ),
    "weights made floats at run time": (
        models.dequantized_weights(),
        [
            ("float-edge", "0", "input", "x", ""),
            ("float-edge", "0", "output", "y", ""),
            ("dequantize", "0:0", "DEQUANTIZE", "", "dense"),
            ("float-tensor", "0:0", "DEQUANTIZE", "net/dense/floats", "dense"),
            ("float-tensor", "0:1", "FULLY_CONNECTED", "x", ""),
            ("float-tensor", "0:1", "FULLY_CONNECTED", "net/dense/floats", "dense"),
            ("float-tensor", "0:1", "FULLY_CONNECTED", "y", ""),
        ],
    ),
    "op of a newer schema": (
        models.edited(changes.newer_op),
        [("unknown-op", "0:4", "BUILTIN_9999", "", "")],
    ),
    "op of version 0": (models.edited(changes.version_0), [("unknown-op", "0:0", "CONV_2D", "", "conv")]),
    "type of a newer schema": (
        models.edited(changes.newer_type),
        [("float-tensor", "0:1", "MAX_POOL_2D", _POOL, "pool"), ("float-tensor", "0:2", "RESHAPE", _POOL, "pool")],
    ),
    "int4": (models.int4(), []),
    "int4, an even number of weights": (models.int4(units=4), []),
    "int4 convolution": (models.int4("CONV_2D", 7), []),
    "int4 depthwise convolution": (models.int4("DEPTHWISE_CONV_2D", 7), []),
    "int4 beside int16": (models.int4(version=13, source="INT16"), []),
    "int4 in an op without a kernel": (
        models.int4("TRANSPOSE_CONV", 3),
        [("int4-kernel", "0:0", "TRANSPOSE_CONV", "net/layer/kernel", "layer")],
    ),
    "int4 in a version without a kernel": (
        models.int4("CONV_2D", 3),
        [("int4-kernel", "0:0", "CONV_2D", "net/layer/kernel", "layer")],
    ),
    # Kernels of TensorFlow 2.16 read two such weights as one, and beyond the end.
    "int4 convolution beside int16": (
        models.int4("CONV_2D", 7, source="INT16"),
        [("int4-kernel", "0:0", "CONV_2D", "net/layer/kernel", "layer")],
    ),
    "int4 result": (
        models.one_op("ADD", [_i8(), _i8(), ("INT4", 0.5, 0)], inputs=2),
        [("int4-kernel", "0:0", "ADD", "out2", "")],
    ),
    "int4 weight of -8": (
        models.int4(weight=-8),
        [("weight-range", "0:0", "FULLY_CONNECTED", "net/layer/kernel", "layer")],
    ),
    # Three weights take 2 bytes.
    "int4 packed into a byte too few": (
        models.edited(changes.one_byte_less, models.int4()),
        [("constant-size", "0:0", "FULLY_CONNECTED", "net/layer/kernel", "layer")],
    ),
    "int4 that is not packed": (
        models.edited(changes.unpacked, models.int4()),
        [("constant-size", "0:0", "FULLY_CONNECTED", "net/layer/kernel", "layer")],
    ),
    "two signatures": (models.two_signatures("INT8"), []),
    "two signatures, one in floats": (
        models.two_signatures("FLOAT32"),
        [
            ("float-edge", "1", "input", "embed/x", "embed"),
            ("float-edge", "1", "output", "embed/y", "embed"),
            ("float-tensor", "1:0", "RELU", "embed/x", "embed"),
            ("float-tensor", "1:0", "RELU", "embed/y", "embed"),
        ],
    ),
    "signature of no subgraph": (
        models.edited(changes.signed_elsewhere, models.two_signatures("INT8")),
        [("signature", "-1", "signature", "", "")],
    ),
    "signature of tensors inside": (
        models.edited(changes.signed_inside, models.two_signatures("INT8")),
        [("signature", "-1", "signature", "", "")],
    ),
    "two signatures of one key": (
        models.edited(changes.signed_twice, models.two_signatures("INT8")),
        [("signature", "-1", "signature", "", "")],
    ),
    "variable": (models.variable(), []),
    "LSTM bias scale": (
        models.lstm(changes.requantized("net/lstm/b1", 0.06)),
        [("bias-scale", "0:0", _LSTM, "net/lstm/b1", "lstm")],
    ),
    "LSTM bias zero point": (
        models.lstm(changes.requantized("net/lstm/b2", 0.05, 1)),
        [("bias-zero-point", "0:0", _LSTM, "net/lstm/b2", "lstm")],
    ),
    "LSTM weight zero point": (
        models.lstm(changes.requantized("net/lstm/w5", 0.1, 3)),
        [("weight-zero-point", "0:0", _LSTM, "net/lstm/w5", "lstm")],
    ),
    "LSTM weights of two scales": (
        models.lstm(changes.per_channel("net/lstm/w6")),
        [("scale-axis", "0:0", _LSTM, "net/lstm/w6", "lstm")],
    ),
    "LSTM cell scale that is no power of 2": (
        models.lstm(changes.requantized("cell", 0.001)),
        [("lstm-cell", "0:0", _LSTM, "cell", "")],
    ),
    "LSTM cell scale above 2**-9": (
        models.lstm(changes.requantized("cell", 2.0**-8)),
        [("lstm-cell", "0:0", _LSTM, "cell", "")],
    ),
    "LSTM cell scale of 2**-9": (models.lstm(changes.requantized("cell", 2.0**-9)), []),
    "LSTM output of another scale": (
        models.lstm(changes.requantized("y", 0.2)),
        [("lstm-state", "0:0", _LSTM, "y", "")],
    ),
    "LSTM hidden values of another zero point": (
        models.lstm(changes.requantized("hidden", 0.1, 5)),
        [("lstm-state", "0:0", _LSTM, "hidden", "")],
    ),
    "LSTM without the scale of hidden values": (
        models.lstm(changes.four_intermediates),
        [("lstm-hidden", "0:0", _LSTM, "", "")],
    ),
    "bias scale of 0": (
        models.quantized("conv/bias", scale=(0.05, 0.0, 0.2)),
        [("bias-scale", "0:0", "CONV_2D", "conv/bias", "conv")],
    ),
    "bias without a scale": (
        models.edited(changes.unscaled("dense/bias")),
        [("bias-scale", "0:3", _DENSE, "dense/bias", "dense")],
    ),
    "input without a scale": (models.edited(changes.unscaled("x")), [("missing-scale", "0:0", "CONV_2D", "x", "")]),
    "weights without a scale": (
        models.edited(changes.unscaled("dense/kernel")),
        [("missing-scale", "0:3", _DENSE, "dense/kernel", "dense")],
    ),
    "result with a scale per channel": (
        models.quantized(_CONV, scale=(0.25, 0.5, 0.75), zero=(-128,) * 3, axis=3),
        [("result-scales", "0:0", "CONV_2D", _CONV, "conv")],
    ),
    "negative dimension": (
        models.edited(changes.shaped(_POOL, (1, -1, 2, 3))),
        [("dynamic-shape", "0:1", "MAX_POOL_2D", _POOL, "pool")],
    ),
    "dimensions that overflow": (
        models.edited(changes.shaped(_POOL, (2**31 - 1,) * 6)),
        [("too-large", "0:1", "MAX_POOL_2D", _POOL, "pool"), ("too-large", "0:2", "RESHAPE", _POOL, "pool")],
    ),
    "shared buffer of another size": (
        models.edited(changes.shared_buffer),
        [("constant-size", "0:0", "CONV_2D", "conv/bias", "conv")],
    ),
    "weights without values": (
        models.edited(changes.without_values),
        [("unwritten", "0:3", _DENSE, "dense/kernel", "dense")],
    ),
    "ops out of order": (
        models.edited(changes.out_of_order),
        [("unwritten", "0:1", "RESHAPE", _POOL, "pool")],
    ),
    "tensor of two ops": (
        models.edited(changes.written_twice),
        [("overwritten", "0:2", "RESHAPE", _FLAT, "flat"), ("unwritten", "0:2", "RESHAPE", _POOL, "pool")],
    ),
    "constant that is fed": (models.edited(changes.fed_constant), [("overwritten", "0", "input", "shape", "")]),
    "constant that is a variable": (
        models.edited(changes.variable_constant),
        [("overwritten", "0:3", _DENSE, "dense/bias", "dense")],
    ),
    "empty model": (models.edited(changes.empty), [("no-output", "0", "output", "", "")]),
    "convolution without weights": (models.edited(changes.no_weights), [("operands", "0:0", "CONV_2D", "", "conv")]),
    "uint8 weights beside int8": (
        models.typed("dense/kernel", "UINT8"),
        [("layer-types", "0:3", _DENSE, "dense/kernel", "dense")],
    ),
    "int16 result of int8": (
        models.typed("net/dense/BiasAdd", "INT16"),
        [("layer-types", "0:3", _DENSE, "net/dense/BiasAdd", "dense")],
    ),
    "sparse weights": (models.edited(changes.sparse), [("sparse", "0:3", _DENSE, "dense/kernel", "dense")]),
}

# For a target, by its name.
TARGET_CASES: dict[str, tuple[bytes, str, Offenders]] = {
    "version above the ceiling": (
        models.one_op("EXP", [_i8(), _i8()], version=2),
        "edge_tpu",
        [("op-version", "0:0", "EXP", "", "")],
    ),
    "version below the ceiling": (models.one_op("EXP", [_i8(), _i8()]), "edge_tpu", []),
    "Dense layer of two scales": (
        models.quantized("dense/kernel", scale=(0.1, 0.1), zero=(0, 0)),
        "edge_tpu",
        [("dense-scales", "0:3", _DENSE, "dense/kernel", "dense")],
    ),
    "Dense layer of two scales where they may be": (
        models.quantized("dense/kernel", scale=(0.1, 0.1), zero=(0, 0)),
        "cpu",
        [],
    ),
    "convolution of three scales": (
        models.sound(),
        "a311d",
        [("weight-scales", "0:0", "CONV_2D", "conv/kernel", "conv")],
    ),
    "int4 weights": (
        models.int4(),
        "nnapi",
        [("weight-bits", "0:0", _DENSE, "net/layer/kernel", "layer")],
    ),
    "int4 weights where they may be": (models.int4(), "cpu", []),
    "int16": (
        models.dense(2, 4, source="INT16", bias_dtype="INT64"),
        "edge_tpu",
        [("activation-type", "0:0", _DENSE, "x", "")],
    ),
    "int16 where it may be": (models.dense(2, 4, source="INT16", bias_dtype="INT64"), "tflm", []),
    "uint8": (
        models.one_op("SOFTMAX", [("UINT8", 0.5, 3), ("UINT8", 1 / 256, 0)]),
        "tflm",
        [("activation-type", "0:0", "SOFTMAX", "in0", "")],
    ),
    "uint8 where it may be": (
        models.one_op("SOFTMAX", [("UINT8", 0.5, 3), ("UINT8", 1 / 256, 0)]),
        "edge_tpu",
        [],
    ),
    "uint8 at the edge alone": (models.one_op("QUANTIZE", [("UINT8", 0.5, 128), _i8()]), "tflm", []),
    "compiled": (models.one_op("edgetpu-custom-op", [_i8(), _i8()]), "edge_tpu", []),
    "compiled with memory to work in": (models.compiled(0.0), "ethos_u", []),
    "compiled with data that nobody computes": (
        models.compiled(0.5),
        "ethos_u",
        [("unwritten", "0:0", "CUSTOM ethos-u", "scratch", "")],
    ),
    "compiled for another target": (
        models.one_op("edgetpu-custom-op", [_i8(), _i8()]),
        "ethos_u",
        [("custom-op", "0:0", "CUSTOM edgetpu-custom-op", "", "")],
    ),
}
