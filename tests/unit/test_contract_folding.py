"""From raw features to a model's integers: folded where that is exact, named step by step where it is not."""

import numpy as np
import pytest
import tensorflow as tf

from components.quantization import convert
from components.quantization.contract.build import Knowledge, build_contract
from components.quantization.contract.c_header import c_header
from components.quantization.contract.preprocessing import Preprocessing
from components.quantization.contract.schema import Contract
from components.quantization.interpreter import quantize

from contract_cases import (
    DEVIATION,
    MEAN,
    contract_of,
    decoded,
    gamma,
    image_model,
    imagenet,
    jpegs,
    pixels,
    scaled,
    standardized,
    table,
    table_model,
    two_input_model,
)

pytestmark = pytest.mark.long


def _way(built):
    return built.contract.inputs[0].preparation


def _assert_is_the_pipelines_own(built, function, raw):
    """The contract, from its sources, gives what preprocessing and quantization give."""
    entry = built.contract.inputs[0]
    features = tf.function(function)({name: tf.constant(value) for name, value in raw.items()})[entry.name].numpy()
    expected = quantize(features, entry.scale, entry.zero_point, entry.dtype)
    sources = built.sources or {entry.preparation.source: raw[entry.preparation.source]}
    made = built.contract.quantize_raw(sources)[entry.name]
    assert made.dtype == expected.dtype
    np.testing.assert_array_equal(made, expected)
    if built.inputs:
        np.testing.assert_array_equal(built.inputs[entry.name], expected)


def test_fold_is_the_identity_when_uint8_pixels_are_divided_by_255_for_a_uint8_input():
    built = contract_of(image_model("uint8"), scaled, {"pixels": pixels()})

    way = _way(built)
    assert (way.kind, way.shift, way.source, way.client_steps) == ("identity", 0, "pixels", ())
    assert (way.verified.method, way.verified.count) == ("exhaustive", 256)
    np.testing.assert_array_equal(built.contract.quantize_raw({"pixels": pixels()})["image"], pixels())
    _assert_is_the_pipelines_own(built, scaled, {"pixels": pixels()})


def test_fold_flips_the_highest_bit_when_the_input_is_int8():
    built = contract_of(image_model("int8"), scaled, {"pixels": pixels()})

    assert (_way(built).kind, _way(built).shift) == ("identity", -128)
    made = built.contract.quantize_raw({"pixels": pixels()})["image"]
    np.testing.assert_array_equal(made.view(np.uint8), pixels() ^ 0x80)


def test_fold_names_decoding_and_starts_from_pixels_when_images_are_jpeg():
    built = contract_of(image_model(), decoded, {"jpeg": jpegs()})

    way = _way(built)
    assert (way.kind, way.source_dtype, way.source_shape) == ("identity", "uint8", (1, 8, 8, 3))
    assert way.raw_features == ("jpeg",)
    (step,) = way.client_steps
    assert step.output == way.source
    assert "each example of jpeg: DecodeJpeg(" in step.description
    assert "channels=3" in step.description
    expected = np.stack([tf.io.decode_jpeg(jpeg, channels=3).numpy() for jpeg in jpegs()])
    np.testing.assert_array_equal(built.sources["image"], expected)
    _assert_is_the_pipelines_own(built, decoded, {"jpeg": jpegs()})


def test_fold_takes_bytes_as_they_are_when_they_are_raw():
    def function(raw):
        images = tf.reshape(tf.io.decode_raw(raw["bytes"], tf.uint8), [-1, 8, 8, 3])
        return {"image": tf.cast(images, tf.float32) / 255.0}

    raw = {"bytes": np.array([image.tobytes() for image in pixels(4)], object)}
    built = contract_of(image_model(), function, raw)

    assert (_way(built).kind, _way(built).shift) == ("identity", -128)
    assert [step.op for step in _way(built).client_steps] == ["DecodeRaw", "Reshape"]
    _assert_is_the_pipelines_own(built, function, raw)


def test_fold_has_one_multiplier_per_channel_when_channels_are_standardized():
    low, high = float((-MEAN / DEVIATION).min()), float(((1 - MEAN) / DEVIATION).max())
    built = contract_of(image_model(low=low, high=high), imagenet, {"pixels": pixels()})

    entry, way = built.contract.inputs[0], _way(built)
    assert way.kind == "affine"
    assert (way.verified.method, way.verified.count) == ("exhaustive", 256)
    np.testing.assert_allclose(way.multiplier, 1 / (255 * DEVIATION * entry.scale), rtol=1e-6)
    np.testing.assert_allclose(way.offset, -MEAN / (DEVIATION * entry.scale), rtol=1e-6)
    _assert_is_the_pipelines_own(built, imagenet, {"pixels": pixels()})


@pytest.mark.parametrize("invert", [lambda bright: 1.0 - bright, lambda bright: -bright + 1.0])
def test_fold_has_a_negative_multiplier_when_pixels_are_inverted(invert):
    def function(raw):
        return {"image": invert(tf.cast(raw["pixels"], tf.float32) / 255.0)}

    built = contract_of(image_model(), function, {"pixels": pixels()})

    way = _way(built)
    assert (way.kind, way.source) == ("affine", "pixels")
    np.testing.assert_allclose([*way.multiplier, *way.offset], [-1.0, 255.0], rtol=1e-6)
    _assert_is_the_pipelines_own(built, function, {"pixels": pixels()})


def test_fold_does_not_follow_a_branch_when_the_condition_repeats_it():
    def function(raw):
        return {"columns": tf.where([[True, True, True]], raw["one"], 0.0)}

    raw = {"one": table()[:, :1]}
    built = contract_of(table_model(), function, raw)

    assert [step.op for step in _way(built).client_steps] == ["SelectV2"]
    _assert_is_the_pipelines_own(built, function, raw)


def test_fold_leaves_a_bias_to_the_client_when_it_is_along_the_first_axis():
    def function(raw):
        bright = tf.cast(raw["pixels"], tf.float32) / 510.0
        return {"image": tf.nn.bias_add(bright, np.linspace(0, 0.5, 8, dtype=np.float32), data_format="NCHW")}

    built = contract_of(image_model(), function, {"pixels": pixels()})

    assert "BiasAdd" in [step.op for step in _way(built).client_steps]
    _assert_is_the_pipelines_own(built, function, {"pixels": pixels()})


def test_fold_is_a_table_when_bytes_go_through_a_curve():
    built = contract_of(image_model(), gamma, {"pixels": pixels()})

    way = _way(built)
    assert (way.kind, way.source, way.client_steps, len(way.tables)) == ("lookup", "pixels", (), 1)
    assert (way.tables[0][0], way.tables[0][255]) == (-128, 127)
    _assert_is_the_pipelines_own(built, gamma, {"pixels": pixels()})


def test_fold_is_exact_for_every_value_when_the_domain_of_floats_is_declared():
    def function(raw):
        return {"columns": (raw["grade"] - 8.0) / 7.0}

    raw = {"grade": np.arange(51, dtype=np.float32).reshape(17, 3) % 17}
    built = contract_of(table_model(), function, raw, domains={"grade": (0, 16)})

    assert (_way(built).verified.method, _way(built).verified.count) == ("exhaustive", 17)
    _assert_is_the_pipelines_own(built, function, raw)


def test_fold_is_one_multiply_add_when_that_is_exact():
    """A power of two changes no digit."""

    def function(raw):
        return {"columns": raw["table"] / [4.0, 64.0, 0.125]}

    built = contract_of(table_model(), function, {"table": table()})

    entry, way = built.contract.inputs[0], _way(built)
    assert (way.kind, way.source, way.client_steps) == ("affine", "table", ())
    np.testing.assert_allclose(way.multiplier, 1 / (np.array([4, 64, 0.125]) * entry.scale), rtol=1e-6)
    assert (way.verified.method, way.verified.count) == ("examples", 64)
    _assert_is_the_pipelines_own(built, function, {"table": table()})


def test_fold_keeps_the_operations_when_one_multiply_add_differs_next_to_ties_alone():
    """None of the examples lies there, where one in fifty differs by a step."""
    built = contract_of(table_model(), standardized, {"table": table()})

    entry, way = built.contract.inputs[0], _way(built)
    assert (way.kind, way.source, way.client_steps) == ("steps", "table", ())
    assert (way.verified.method, way.verified.count) == ("examples", 64)
    near = _values_near_halves(entry)
    features = tf.function(standardized)({"table": tf.constant(near)})["columns"].numpy()
    expected = quantize(features, entry.scale, entry.zero_point, entry.dtype)
    np.testing.assert_array_equal(built.contract.quantize_raw({"table": near})["columns"], expected)


@pytest.mark.parametrize("examples", [True, False])
def test_fold_keeps_the_operations_when_one_multiply_add_rounds_otherwise(examples):
    """TensorFlow computes a division by a literal as a multiplication by its reciprocal."""
    raw = {"table": _values_near_halves(build_contract(table_model()).contract.inputs[0])}

    built = contract_of(table_model(), standardized, raw, examples=examples)

    way = _way(built)
    assert way.kind == "steps"
    assert [operation.op for operation in way.operations] == ["subtract", "multiply"]
    assert way.operations[0].values == (1.0, 100.0, -2.0)
    assert way.operations[1].values == tuple((np.float32(1) / np.float32([3, 40, 0.1])).tolist())
    _assert_is_the_pipelines_own(built, standardized, raw)


@pytest.mark.parametrize("captured", [True, False])
def test_frozen_graph_computes_bit_by_bit_what_preprocessing_computes(captured):
    """TensorFlow multiplies by the reciprocal of a literal, and divides by what is captured."""
    deviation = tf.Variable([3.3, 7.7, 0.7]) if captured else np.float32([3.3, 7.7, 0.7])
    preprocessing = Preprocessing(
        function=lambda raw: {"columns": raw["table"] / deviation}, features={"table": tf.TensorSpec([None, 3])}
    )
    graph = preprocessing.frozen()

    made = graph.run(graph.outputs["columns"], {"table": table()})

    np.testing.assert_array_equal(made, preprocessing.apply({"table": table()})["columns"])
    divided = table() / np.float32([3.3, 7.7, 0.7])
    assert np.array_equal(made, divided) == captured


@pytest.mark.parametrize("examples", [True, False])
def test_fold_divides_when_the_deviations_are_no_literals(examples):
    """As those that Transform's analyzers found: they are captured, and TensorFlow divides by them."""
    mean, deviation = tf.constant([1.0, 100.0, -2.0]), tf.Variable([3.0, 40.0, 0.1])
    raw = {"table": _values_near_halves(build_contract(table_model()).contract.inputs[0])}

    def function(raw):
        return {"columns": (raw["table"] - mean) / deviation}

    built = contract_of(table_model(), function, raw, examples=examples)

    assert [operation.op for operation in _way(built).operations] == ["subtract", "divide"]
    _assert_is_the_pipelines_own(built, function, raw)


def _values_near_halves(entry):
    """Raw columns that lie as near as float32 can to where the integer changes."""
    codes = np.arange(-100, 100) + 0.5
    middle = (codes[:, None] * entry.scale * [3.0, 40.0, 0.1] + [1.0, 100.0, -2.0]).astype(np.float32)
    around = [middle]
    for _ in range(3):
        around = [np.nextafter(around[0], np.float32(-1e9)), *around, np.nextafter(around[-1], np.float32(1e9))]
    return np.concatenate(around)


def test_fold_keeps_the_operations_when_there_are_no_examples():
    built = contract_of(table_model(), standardized, {"table": table()}, examples=False)

    assert (_way(built).kind, _way(built).verified.method) == ("steps", "construction")
    assert _way(built).verified.count == 256
    assert (built.sources, built.inputs) == ({}, {})


def test_fold_follows_the_branch_of_each_column_when_a_deviation_is_0():
    """As tft.scale_to_z_score computes it, with its analyzers' results in place."""

    def function(raw):
        numerator = raw["table"] - [1.0, 100.0, -2.0]
        denominator = tf.sqrt(tf.constant([9.0, 1600.0, 0.0]))
        varies = tf.cast(tf.zeros_like(numerator) + denominator, tf.bool)
        return {"columns": tf.where(varies, numerator / denominator, numerator)}

    built = contract_of(table_model(), function, {"table": table()})

    entry, way = built.contract.inputs[0], _way(built)
    assert (way.source, way.client_steps) == ("table", ())
    if way.kind == "affine":
        np.testing.assert_allclose(way.multiplier, 1 / (np.array([3, 40, 1]) * entry.scale), rtol=1e-6)
    _assert_is_the_pipelines_own(built, function, {"table": table()})


def test_fold_names_the_steps_in_order_when_one_is_a_logarithm():
    def function(raw):
        return {"columns": tf.math.log1p(raw["table"] * 0.5 + 2.0) / 3.0 - 1.0}

    raw = {"table": np.abs(table())}
    built = contract_of(table_model(), function, raw)

    way = _way(built)
    assert [step.op for step in way.client_steps] == ["Mul", "AddV2", "Log1p"]
    assert way.client_steps[0].description.startswith("table * 0.5")
    assert way.source == way.client_steps[-1].output
    assert way.raw_features == ("table",)
    np.testing.assert_allclose(built.sources["columns"], np.log1p(raw["table"] * 0.5 + 2.0), rtol=1e-6)
    _assert_is_the_pipelines_own(built, function, raw)


def test_fold_starts_after_the_concatenation_when_two_features_make_one_input():
    def function(raw):
        return {"columns": tf.concat([raw["one"] / 2.0, raw["two"]], axis=1)}

    raw = {"one": table()[:, :1], "two": table()[:, 1:]}
    built = contract_of(table_model(), function, raw)

    way = _way(built)
    assert [step.op for step in way.client_steps] == ["RealDiv", "ConcatV2"]
    assert way.raw_features == ("one", "two")
    _assert_is_the_pipelines_own(built, function, raw)


def test_fold_does_not_take_a_transposition_for_the_identity_when_pixels_change_places():
    def function(raw):
        return {"image": tf.cast(tf.transpose(raw["pixels"], [0, 2, 1, 3]), tf.float32) / 255.0}

    built = contract_of(image_model(), function, {"pixels": pixels()})

    assert [step.op for step in _way(built).client_steps] == ["Transpose"]
    assert "[0, 2, 1, 3]" in _way(built).client_steps[0].description
    assert _way(built).kind == "identity"
    _assert_is_the_pipelines_own(built, function, {"pixels": pixels()})


def test_fold_gives_the_values_of_constants_when_a_step_needs_many():
    weights = np.linspace(0, 1, 192, dtype=np.float32).reshape(8, 8, 3)

    def function(raw):
        return {"image": tf.sin(tf.cast(raw["pixels"], tf.float32) * weights)}

    built = contract_of(image_model(), function, {"pixels": pixels()})

    (values,) = next(step for step in _way(built).client_steps if step.op == "Mul").constants.values()
    np.testing.assert_array_equal(np.float32(values), weights.ravel())
    _assert_is_the_pipelines_own(built, function, {"pixels": pixels()})


def test_fold_reshapes_row_by_row_when_the_batch_is_read_from_the_shape():
    def function(raw):
        return {"image": tf.reshape(raw["flat"], [tf.shape(raw["flat"])[0], 8, 8, 3]) / 255.0}

    raw = {"flat": pixels().reshape(-1, 192).astype(np.float32)}
    built = contract_of(image_model(), function, raw)

    assert (_way(built).source, _way(built).source_shape) == ("flat", (1, 192))
    _assert_is_the_pipelines_own(built, function, raw)


def test_fold_leaves_integers_alone_when_arithmetic_on_them_could_wrap():
    def function(raw):
        return {"image": tf.cast(raw["pixels"] + tf.constant(100, tf.uint8), tf.float32) / 255.0}

    built = contract_of(image_model(), function, {"pixels": pixels()})

    assert _way(built).client_steps or _way(built).kind == "lookup"
    _assert_is_the_pipelines_own(built, function, {"pixels": pixels()})


def test_fold_hands_on_indices_when_an_input_has_no_scale():
    def function(raw):
        lookup = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(["a", "b", "c"], tf.constant([0, 1, 2], tf.int64)), 4
        )
        return {"columns": raw["table"] / 2.0, "word": lookup.lookup(raw["text"])}

    raw = {"table": table(4), "text": np.array([["a"], ["b"], ["?"], ["c"]], object)}
    built = contract_of(two_input_model(), function, raw)

    columns, word = (
        next(entry for entry in built.contract.inputs if entry.name == name) for name in ("columns", "word")
    )
    assert columns.preparation.source == "table"
    assert (word.dtype, word.scale, word.preparation.kind) == ("int32", None, "identity")
    assert [step.op for step in word.preparation.client_steps] == ["LookupTableFindV2"]
    made = built.contract.quantize_raw(built.sources)
    assert made["word"].tolist() == [[0], [1], [4], [2]]


def test_fold_is_quantization_alone_when_there_is_no_preprocessing():
    built = build_contract(table_model())

    entry, way = built.contract.inputs[0], _way(built)
    assert (way.kind, way.source, way.offset) == ("affine", "columns", (0.0,))
    values = np.linspace(-4, 4, 3000, dtype=np.float32).reshape(-1, 3)
    np.testing.assert_array_equal(
        built.contract.quantize_raw({"columns": values})["columns"],
        quantize(values, entry.scale, entry.zero_point, entry.dtype),
    )


def test_build_contract_names_what_there_is_when_preprocessing_gives_no_such_input():
    with pytest.raises(ValueError, match="gives no 'image', which the model takes; it gives other"):
        contract_of(image_model(), lambda raw: {"other": raw["pixels"]}, {"pixels": pixels()})


def test_build_contract_says_both_shapes_when_they_differ():
    with pytest.raises(ValueError, match=r"gives shape \(1, 8, 8, 1\), the model takes \(1, 8, 8, 3\)"):
        contract_of(image_model(), lambda raw: {"image": scaled(raw)["image"][..., :1]}, {"pixels": pixels()})


def test_build_contract_lists_raw_features_when_examples_lack_some():
    preprocessing = Preprocessing(
        function=scaled,
        features={"pixels": tf.TensorSpec([None, 8, 8, 3], tf.uint8), "label": tf.TensorSpec([None, 1], tf.int64)},
    )
    with pytest.raises(ValueError, match="raw examples lack label; got pixels"):
        preprocessing.apply({"pixels": pixels()})


def test_from_concrete_takes_named_tensors_and_a_dict():
    spec = tf.TensorSpec([None, 8, 8, 3], tf.uint8, name="pixels")
    named = tf.function(lambda pixels: scaled({"pixels": pixels}))
    expected = pixels() / np.float32(255)

    for concrete in (
        tf.function(scaled).get_concrete_function({"pixels": spec}),
        named.get_concrete_function(pixels=spec),
        named.get_concrete_function(spec),
    ):
        preprocessing = Preprocessing.from_concrete(concrete)
        assert set(preprocessing.features) == {"pixels"}
        np.testing.assert_allclose(preprocessing.apply({"pixels": pixels()})["image"], expected, rtol=1e-6)


def test_from_concrete_says_what_it_takes_when_the_result_is_no_dict():
    spec = tf.TensorSpec([None, 3], tf.float32, name="x")
    with pytest.raises(ValueError, match="returns no dict"):
        Preprocessing.from_concrete(tf.function(lambda x: x).get_concrete_function(spec))


def test_fold_takes_a_saved_transform_graph_with_sparse_features_and_tables(tmp_path):
    """As Transform saves one: functions in a SavedModel, with assertions and tables that tie all results together."""

    class Transform(tf.Module):
        def __init__(self):
            super().__init__()
            self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [3]), -1)
            self.mean, self.deviation = tf.Variable([1.0, 100.0, -2.0]), tf.Variable([3.0, 40.0, 0.1])

        @tf.function
        def __call__(self, raw):
            word = self.table.lookup(raw["text"])
            with tf.control_dependencies([tf.debugging.assert_greater_equal(word, -1)]):
                columns = (raw["table"] - self.mean) / self.deviation
            return {"columns": columns, "word": word, "count": tf.sparse.reduce_sum(raw["list"], 1)}

    features = {
        "table": tf.TensorSpec([None, 3], tf.float32),
        "text": tf.TensorSpec([None, 1], tf.string),
        "list": tf.SparseTensorSpec([None, 2], tf.float32),
    }
    module = Transform()
    module.__call__.get_concrete_function(features)
    tf.saved_model.save(module, str(tmp_path))
    raw = {"table": table(), "text": np.full((64, 1), b"a", object), "list": tf.sparse.from_dense(tf.ones([64, 2]))}

    built = build_contract(
        table_model(),
        Knowledge(
            preprocessing=Preprocessing(function=tf.saved_model.load(str(tmp_path)), features=features),
            raw_examples=raw,
        ),
    )

    assert (_way(built).source, _way(built).raw_features) == ("table", ("table",))
    np.testing.assert_array_equal(built.sources["columns"], raw["table"])
    np.testing.assert_array_equal(built.contract.quantize_raw(built.sources)["columns"], built.inputs["columns"])


def test_fold_divides_or_multiplies_as_tensorflow_does_when_examples_cannot_tell():
    """The offset is too large for one multiply-add; of real examples none lies where the two differ."""

    def function(raw):
        return {"columns": (raw["table"] - 1e6) / 10.0}

    raw = {"table": table() * np.float32(3) + np.float32(1e6)}
    built = contract_of(table_model(), function, raw)

    assert [operation.op for operation in _way(built).operations] == ["subtract", "multiply"]
    halves = (np.arange(-120, 120) + 0.5) * built.contract.inputs[0].scale
    near = np.float32(halves * 10 + 1e6)[:, None]
    values = (near + np.arange(-1, 2) * np.spacing(near)).astype(np.float32)
    expected = Preprocessing(function=function, features={"table": tf.TensorSpec([None, 3])}).apply({"table": values})
    entry = built.contract.inputs[0]
    np.testing.assert_array_equal(
        built.contract.quantize_raw({"columns": values})["columns"],
        quantize(expected["columns"], entry.scale, entry.zero_point, entry.dtype),
    )


@pytest.mark.parametrize("half", [tf.float16, tf.bfloat16])
def test_fold_starts_behind_half_precision_when_a_device_has_no_such_type(half):
    def function(raw):
        return {"columns": tf.cast(tf.cast(raw["table"], half), tf.float32) / 3.0}

    built = contract_of(table_model(), function, {"table": table()})

    way = _way(built)
    assert way.source_dtype == "float32"
    assert [step.op for step in way.client_steps] == ["Cast", "Cast"]
    np.testing.assert_allclose(way.multiplier, 1 / (3 * built.contract.inputs[0].scale), rtol=1e-6)
    _assert_is_the_pipelines_own(built, function, {"table": table()})
    assert "float" in c_header(built.contract)


def test_to_json_writes_constants_that_are_no_numbers_as_text():
    borders = [-np.inf, *range(10), np.inf]

    def function(raw):
        places = tf.searchsorted(tf.constant([borders], tf.float32), tf.reshape(raw["table"], [1, -1]))
        return {"columns": tf.reshape(tf.cast(places, tf.float32), [-1, 3])}

    built = contract_of(table_model(), function, {"table": table()})

    assert Contract.from_json(built.contract.to_json()) == built.contract
    (values,) = next(step.constants.values() for step in _way(built).client_steps if step.constants)
    assert values == ("-inf", *range(10), "inf")


def test_fold_tries_fewer_values_when_an_input_is_large():
    import tf_keras

    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [layers.InputLayer((512, 512, 3), name="image"), layers.AveragePooling2D(512, name="mean")]
    )
    tflite = convert(model, representative_dataset=[np.linspace(0, 1, 512 * 512 * 3).reshape(1, 512, 512, 3)])

    assert _way(build_contract(tflite)).verified.count == 1  # of 786,432 elements each
