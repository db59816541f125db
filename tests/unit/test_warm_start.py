import json

import numpy as np
import pytest
import tf_keras

from components.quantization.qat.warm_start import take_weights

layers = tf_keras.layers


def _model(classes: int, body: str = "body", head: str = "head") -> tf_keras.Model:
    inputs = tf_keras.Input((4,), name="x")
    nested_input = tf_keras.Input((4,))
    nested = tf_keras.Model(nested_input, layers.BatchNormalization(name="norm")(nested_input), name="nested")
    outputs = layers.Dense(classes, name=head)(layers.Dense(3, name=body)(nested(inputs)))
    return tf_keras.Model(inputs, outputs)


def test_layers_of_the_same_name_and_shapes_take_the_weights() -> None:
    source, model = _model(5), _model(5)
    source.get_layer("nested").get_layer("norm").set_weights([np.full(4, value) for value in (2, 3, 4, 5)])
    report = take_weights(model, source)
    for one, other in zip(model.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [layer.layer for layer in report.layers] == ["nested/norm", "body", "head"]
    assert report.taken == 3


def test_what_does_not_fit_is_new_and_named_with_the_reason() -> None:
    source, model = _model(5, head="old"), _model(7)
    head = model.get_layer("head").get_weights()
    report = take_weights(model, source)
    np.testing.assert_array_equal(model.get_layer("head").get_weights()[0], head[0])
    reasons = {entry["layer"]: entry["reason"] for entry in json.loads(report.to_json()) if not entry["taken"]}
    assert reasons == {
        "head": "the earlier model has no layer of this name",
        "old": "only the earlier model has it",
    }
    (match,) = [layer for layer in take_weights(_model(7), _model(5)).layers if layer.layer == "head"]
    assert match.reason == "shapes are [(3, 7), (7,)], the earlier model's [(3, 5), (5,)]"
    assert "head         new    shapes" in str(take_weights(_model(7), _model(5)))


def test_a_model_without_one_fitting_layer_is_refused_with_the_report() -> None:
    source = tf_keras.Sequential([layers.Dense(3, name="other", input_shape=(9,))])
    with pytest.raises(ValueError, match=r"no layer of the earlier model .* give layers the same names(.|\n)*other"):
        take_weights(_model(5), source)
