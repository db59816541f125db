import functools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization import convert
from components.quantization.attribution.kernel_agreement import kernel_agreement
from components.quantization.interpreter import IntegerModel
from components.quantization.kernels import KERNELS, KernelInterpreter, delegated_ops, load, real_values
from components.quantization.qat.fake_quantization import FakeQuantize

import small_models as models

pytestmark = pytest.mark.slow

# MLPerf Tiny's ResNet8 for CIFAR-10, in int8, and images; not part of the project.
_SHARED = Path(__file__).parents[3] / "shared"
_RESNET = _SHARED / "models/mlperf_tiny/pretrainedResnet_quant.tflite"
_IMAGES = _SHARED / "data/cifar10/eval-00000-of-00001.tfrecord"


@functools.lru_cache(maxsize=1)
def _tflite() -> bytes:
    tf_keras.utils.set_random_seed(1)
    return convert(models.convolutional(), representative_dataset=[models.images(20)])


@functools.lru_cache(maxsize=1)
def _passing_on() -> bytes:
    """A model that returns its four values, rounded to steps of 0.01 from -1.28 to 1.27."""
    x = tf_keras.Input((4,), name="x")
    model = tf_keras.Model(x, FakeQuantize(name="y")(x))
    model.get_layer("y").set_range(-1.28, 1.27)
    return convert(model, profile="cpu")


def _alone(tflite: bytes, resolver: object, images: np.ndarray) -> np.ndarray:
    """The integers of the output, without the code under test."""
    interpreter = tf.lite.Interpreter(model_content=tflite, num_threads=1, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = source["quantization"]
    rows = []
    for image in images:
        codes = np.clip(np.rint(image[None] * (np.float32(1) / np.float32(scale))) + zero_point, -128, 127)
        interpreter.set_tensor(source["index"], codes.astype(np.int8))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(result["index"])[0].astype(int))
    return np.array(rows)


def test_kernel_agreement_equals_an_independent_computation() -> None:
    images = models.images(60, seed=3)
    resolvers = tf.lite.experimental.OpResolverType
    codes = {
        "default": _alone(_tflite(), resolvers.AUTO, images),
        "optimized": _alone(_tflite(), resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES, images),
        "reference": _alone(_tflite(), resolvers.BUILTIN_REF, images),
    }
    found = kernel_agreement(_tflite(), [images[:25], images[25:]])
    assert found.examples == 60
    assert [(pair.first, pair.second) for pair in found.pairs] == [
        ("default", "optimized"),
        ("default", "reference"),
        ("optimized", "reference"),
    ]
    for pair in found.pairs:
        one, other = codes[pair.first], codes[pair.second]
        tied = [len(set(row[row == row.max()])) < np.sum(row == row.max()) for row in np.concatenate([one, other])]
        assert pair.output == "probabilities"
        assert pair.predictions == 60
        assert pair.equal == pytest.approx(sum(map(int, (one == other).ravel())) / 180)
        assert pair.equal_examples == pytest.approx(np.mean([list(one[i]) == list(other[i]) for i in range(60)]))
        assert pair.max_lsb == abs(one - other).max()
        assert pair.top1_differs == pytest.approx(np.mean(one.argmax(1) != other.argmax(1)))
        assert pair.ties == pytest.approx(np.mean(np.logical_or(tied[:60], tied[60:])))
        assert pair.top1_differs_beyond_ties <= pair.top1_differs


def test_kernel_agreement_counts_ties_when_two_codes_are_equal_at_the_top() -> None:
    examples = np.array([[0.5, 0.5, 0.1, 0.0], [0.1, 0.9, 0.2, 0.0], [0.2, 0.204, 0.1, 0.0], [1.27, 9.0, 0.0, 0.0]])
    found = kernel_agreement(_passing_on(), [examples])
    # Equal; one larger; equal once rounded to steps of 0.01; equal once cut off at 1.27.
    assert {pair.ties for pair in found.pairs} == {0.75}
    assert {pair.equal for pair in found.pairs} == {1.0}
    assert {pair.top1_differs for pair in found.pairs} == {0.0}


def test_kernel_agreement_says_which_kernels_ran() -> None:
    found = kernel_agreement(_tflite(), [models.images(2)])
    assert found.kernels["optimized"] == "built-in optimized kernels"
    assert found.kernels["reference"] == "reference kernels"
    assert found.kernels["default"].startswith("default kernels (XNNPACK runs ")
    lines = str(found).splitlines()
    assert lines[0] == f"default: {found.kernels['default']}"
    assert lines[4].split()[:4] == ["default", "-", "optimized", "probabilities"]
    assert lines[4].split()[4:6] == [str(found.pairs[0].examples), f"{found.pairs[0].equal:.2%}"]


def test_delegated_ops_are_those_of_the_default_kernels_alone() -> None:
    ops = len(KernelInterpreter(_tflite()).graph.ops)
    taken = {kernels: delegated_ops(load(_tflite(), kernels)) for kernels in KERNELS}
    assert taken["optimized"] == taken["reference"] == 0
    # XNNPACK has int8 kernels for convolution, pooling and fully connected.
    assert 3 <= taken["default"] <= ops


@pytest.mark.parametrize("kernels", KERNELS)
def test_integer_model_takes_the_kernels_that_it_is_told(kernels: str) -> None:
    images = models.images(20, seed=2)
    model = IntegerModel(_tflite(), kernels=kernels)  # type: ignore[arg-type]
    interpreter = KernelInterpreter(_tflite(), kernels)  # type: ignore[arg-type]
    output = interpreter.outputs["probabilities"]
    scores = model.predict({"image": images})["probabilities"]
    for image, row in zip(images, scores, strict=True):
        interpreter.run({"image": image[None]})
        np.testing.assert_allclose(real_values(interpreter.codes(output), output)[0], row, rtol=1e-6)
    assert model.kernels == interpreter.description


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"examples": []}, "examples: got none, expected at least one"),
        ({"examples": [np.zeros((1, 3))]}, "examples: input 'image' has shape"),
        ({"kernels": ("default", "fast")}, "kernels: got 'fast', expected one of default, optimized, reference"),
        ({"kernels": ("default",)}, "kernels: got \\['default'\\], expected at least two of default"),
    ],
)
def test_kernel_agreement_raises_when_an_argument_is_wrong(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel_agreement(**{"tflite": _tflite(), "examples": [models.images(1)], **arguments})  # type: ignore[arg-type]


def test_integer_model_raises_when_the_kernels_are_unknown() -> None:
    with pytest.raises(ValueError, match="kernels: got 'fast', expected one of default, optimized, reference"):
        IntegerModel(_tflite(), kernels="fast")  # type: ignore[arg-type]


@pytest.mark.skipif(not (_RESNET.exists() and _IMAGES.exists()), reason="the reference model is not here")
def test_kernels_disagree_on_a_residual_network() -> None:
    records = tf.data.TFRecordDataset(str(_IMAGES)).take(100).as_numpy_iterator()
    features = [tf.train.Example.FromString(record).features.feature["image"] for record in records]
    images = np.stack([tf.io.decode_image(one.bytes_list.value[0]).numpy() for one in features]).astype(np.float32)
    for pair in kernel_agreement(_RESNET.read_bytes(), [images]).pairs:
        assert 0.5 < pair.equal < 1.0
        assert pair.equal_examples < 0.9
        assert pair.max_lsb > 10
        assert pair.top1_differs_beyond_ties <= pair.top1_differs < 0.15
