"""Small models, one for each family of architectures that ships in integers: what golden conversions are made of."""

from collections.abc import Callable
from typing import Any

import tf_keras

layers = tf_keras.layers
Tensor = Any

IMAGE = (16, 16, 3)
CLASSES = 5


def _image() -> Tensor:
    return layers.Input(IMAGE, name="image")


def _conv(x: Tensor, filters: int, name: str, **how: Any) -> Tensor:
    """Convolution, batch normalization, ReLU6."""
    kernel, activation = how.pop("kernel", 3), how.pop("activation", True)
    x = layers.Conv2D(filters, kernel, padding="same", use_bias=False, name=name, **how)(x)
    x = layers.BatchNormalization(name=f"{name}_normalization")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if activation else x


def _depthwise(x: Tensor, name: str, **how: Any) -> Tensor:
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=name, **how)(x)
    x = layers.BatchNormalization(name=f"{name}_normalization")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def _classifier(inputs: Any, x: Tensor) -> tf_keras.Model:
    x = layers.GlobalAveragePooling2D(name="average")(x) if len(x.shape) == 4 else x
    return tf_keras.Model(inputs, layers.Dense(CLASSES, activation="softmax", name="probabilities")(x))


def convolutions() -> tf_keras.Model:
    """LeNet: convolutions, max pooling, Dense."""
    image = x = _image()
    for index, filters in enumerate((6, 16)):
        x = layers.Conv2D(filters, 5, padding="same", activation="relu", name=f"conv{index}")(x)
        x = layers.MaxPooling2D(name=f"pool{index}")(x)
    x = layers.Dense(24, activation="relu", name="hidden")(layers.Flatten(name="flatten")(x))
    return _classifier(image, x)


def depthwise_separable() -> tf_keras.Model:
    """MobileNet: depthwise and pointwise convolutions."""
    image = _image()
    x = _conv(image, 8, "stem", strides=2)
    for index in range(2):
        x = _conv(_depthwise(x, f"depthwise{index}"), 16, f"pointwise{index}", kernel=1)
    return _classifier(image, x)


def inverted_residual() -> tf_keras.Model:
    """MobileNetV2: expansion, depthwise convolution, linear projection, sum."""
    image = _image()
    x = _conv(image, 8, "stem", strides=2)
    y = _conv(_depthwise(_conv(x, 32, "expand", kernel=1), "depthwise"), 8, "project", kernel=1, activation=False)
    return _classifier(image, layers.Add(name="sum")([x, y]))


def squeeze_and_excite() -> tf_keras.Model:
    """MobileNetV3: hard swish, and channels scaled by a hard sigmoid of their averages."""
    image = _image()
    x = _conv(image, 16, "stem", strides=2, activation=False)
    x = x * layers.ReLU(6.0, name="gate")(x + 3.0) * (1.0 / 6.0)
    y = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    y = layers.Conv2D(4, 1, activation="relu", name="reduce")(y)
    y = layers.Conv2D(16, 1, activation="hard_sigmoid", name="excite")(y)
    return _classifier(image, layers.Multiply(name="scale")([x, y]))


def residual() -> tf_keras.Model:
    """ResNet: a block with a projection, and one without."""
    image = _image()
    x = _conv(image, 8, "stem")
    for index, (filters, strides) in enumerate(((16, 2), (16, 1))):
        y = _conv(x, filters, f"block{index}_a", strides=strides)
        y = _conv(y, filters, f"block{index}_b", activation=False)
        if strides > 1:
            x = layers.Conv2D(filters, 1, strides, name=f"block{index}_projection")(x)
        x = layers.ReLU(name=f"block{index}_relu")(layers.Add(name=f"block{index}_sum")([x, y]))
    return _classifier(image, x)


def inception() -> tf_keras.Model:
    """Inception: branches of convolutions and pooling, concatenated."""
    image = _image()
    x = _conv(image, 8, "stem", strides=2)
    pooled = layers.AveragePooling2D(3, 1, padding="same", name="pool")(x)
    branches = [
        _conv(x, 4, "one", kernel=1),
        _conv(_conv(x, 4, "three_reduce", kernel=1), 8, "three"),
        _conv(pooled, 4, "pooled", kernel=1),
    ]
    return _classifier(image, layers.Concatenate(name="concatenation")(branches))


def dense_block() -> tf_keras.Model:
    """DenseNet: each layer takes all before it; normalization comes before the convolution."""
    image = _image()
    x = layers.Conv2D(8, 3, 2, padding="same", name="stem")(image)
    for index in range(3):
        y = layers.ReLU(name=f"relu{index}")(layers.BatchNormalization(name=f"normalization{index}")(x))
        y = layers.Conv2D(4, 3, padding="same", name=f"conv{index}")(y)
        x = layers.Concatenate(name=f"concatenation{index}")([x, y])
    return _classifier(image, x)


def grouped_convolution() -> tf_keras.Model:
    """ResNeXt: a convolution in two groups."""
    image = _image()
    x = _conv(image, 8, "stem", strides=2)
    y = layers.Conv2D(8, 3, padding="same", groups=2, activation="relu", name="grouped")(x)
    return _classifier(image, layers.Add(name="sum")([x, y]))


def autoencoder() -> tf_keras.Model:
    """Convolutions down, transposed convolutions up."""
    image = _image()
    x = _conv(image, 8, "down", strides=2)
    x = layers.Conv2DTranspose(8, 3, 2, padding="same", activation="relu", name="up")(x)
    return tf_keras.Model(image, layers.Conv2D(3, 3, padding="same", activation="sigmoid", name="picture")(x))


def segmentation() -> tf_keras.Model:
    """U-Net: what was scaled down is scaled up again beside what was not; a class for each pixel."""
    image = _image()
    fine = _conv(image, 8, "fine")
    coarse = _conv(layers.MaxPooling2D(name="pool")(fine), 16, "coarse")
    up = layers.UpSampling2D(interpolation="bilinear", name="up")(coarse)
    x = _conv(layers.Concatenate(name="skip")([fine, up]), 8, "merge")
    return tf_keras.Model(image, layers.Conv2D(CLASSES, 1, activation="softmax", name="classes")(x))


def detection() -> tf_keras.Model:
    """SSD: boxes and class scores at every position, two outputs of different ranges."""
    image = _image()
    x = _depthwise(_conv(image, 8, "stem", strides=2), "depthwise", strides=2)
    boxes = layers.Reshape((-1, 4), name="boxes")(layers.Conv2D(8, 3, padding="same", name="box_head")(x))
    scores = layers.Reshape((-1, CLASSES), name="class_reshape")(
        layers.Conv2D(2 * CLASSES, 3, padding="same", name="class_head")(x)
    )
    return tf_keras.Model(image, [boxes, layers.Activation("sigmoid", name="scores")(scores)])


def super_resolution() -> tf_keras.Model:
    """Twice the size by depth to space."""
    import tensorflow as tf

    image = _image()
    x = layers.Conv2D(12, 3, padding="same", name="features")(_conv(image, 8, "stem"))
    return tf_keras.Model(image, layers.Lambda(lambda t: tf.nn.depth_to_space(t, 2), name="larger")(x))


def attention() -> tf_keras.Model:
    """A transformer's block: attention, sums, layer normalization, two Dense layers."""
    sequence = layers.Input((8, 16), name="sequence")
    y = layers.MultiHeadAttention(2, 8, name="attention")(sequence, sequence)
    x = layers.LayerNormalization(name="normalization1")(layers.Add(name="sum1")([sequence, y]))
    y = layers.Dense(16, name="contract")(layers.Dense(32, activation="relu", name="expand")(x))
    x = layers.LayerNormalization(name="normalization2")(layers.Add(name="sum2")([x, y]))
    return _classifier(sequence, layers.GlobalAveragePooling1D(name="average")(x))


def mixer() -> tf_keras.Model:
    """MLP-Mixer: Dense layers over positions, then over channels."""
    sequence = layers.Input((8, 16), name="patches")
    y = layers.Permute((2, 1), name="to_positions")(sequence)
    y = layers.Dense(8, activation="relu", name="positions")(y)
    x = layers.Add(name="sum1")([sequence, layers.Permute((2, 1), name="to_channels")(y)])
    x = layers.Add(name="sum2")([x, layers.Dense(16, activation="relu", name="channels")(x)])
    return _classifier(sequence, layers.GlobalAveragePooling1D(name="average")(x))


def lstm() -> tf_keras.Model:
    """An LSTM over a sequence."""
    sequence = layers.Input((8, 6), name="sequence")
    return _classifier(sequence, layers.LSTM(12, name="lstm")(sequence))


def gru() -> tf_keras.Model:
    """A GRU over a sequence."""
    sequence = layers.Input((6, 6), name="sequence")
    return _classifier(sequence, layers.GRU(8, name="gru")(sequence))


def simple_rnn() -> tf_keras.Model:
    """A recurrent layer without gates."""
    sequence = layers.Input((6, 6), name="sequence")
    return _classifier(sequence, layers.SimpleRNN(8, name="rnn")(sequence))


def embedding() -> tf_keras.Model:
    """Words, averaged."""
    words = layers.Input((8,), dtype="int32", name="words")
    x = layers.Embedding(20, 8, name="embedding")(words)
    return _classifier(words, layers.Dense(8, activation="relu", name="hidden")(layers.Flatten(name="flatten")(x)))


def audio() -> tf_keras.Model:
    """Convolutions over time, dilated and causal."""
    sound = layers.Input((64, 1), name="sound")
    x = layers.Conv1D(8, 9, 2, activation="relu", name="front")(sound)
    x = layers.Conv1D(8, 3, padding="causal", dilation_rate=2, activation="relu", name="dilated")(x)
    return _classifier(sound, layers.GlobalMaxPooling1D(name="max")(layers.MaxPooling1D(name="pool")(x)))


def keyword_spotting() -> tf_keras.Model:
    """DS-CNN: a spectrogram, one wide convolution, depthwise separable ones."""
    spectrogram = layers.Input((24, 10, 1), name="spectrogram")
    x = layers.Conv2D(8, (10, 4), 2, padding="same", activation="relu", name="stem")(spectrogram)
    x = layers.SeparableConv2D(8, 3, padding="same", activation="relu", name="separable")(x)
    x = layers.AveragePooling2D((12, 5), name="average_pool")(x)
    return _classifier(spectrogram, layers.Flatten(name="flatten")(x))


def anomaly_detection() -> tf_keras.Model:
    """An autoencoder of Dense layers."""
    frame = x = layers.Input((32,), name="frame")
    for index, units in enumerate((16, 4, 16)):
        x = layers.Dense(units, name=f"dense{index}")(x)
        x = layers.ReLU(name=f"relu{index}")(layers.BatchNormalization(name=f"normalization{index}")(x))
    return tf_keras.Model(frame, layers.Dense(32, name="reconstruction")(x))


def wide_and_deep() -> tf_keras.Model:
    """An image, numbers and a category, three inputs of different kinds; and two outputs."""
    image = _image()
    numbers = layers.Input((6,), name="numbers")
    category = layers.Input((1,), dtype="int32", name="category")
    x = layers.GlobalAveragePooling2D(name="average")(_conv(image, 8, "stem", strides=2))
    y = layers.Dense(8, activation="relu", name="deep")(numbers)
    z = layers.Flatten(name="flatten")(layers.Embedding(20, 4, name="embedding")(category))
    x = layers.Concatenate(name="features")([x, y, z])
    outputs = [layers.Dense(1, name="price")(x), layers.Dense(CLASSES, activation="softmax", name="kind")(x)]
    return tf_keras.Model([image, numbers, category], outputs)


def two_towers() -> tf_keras.Model:
    """Two inputs, whose embeddings are multiplied."""
    towers = [layers.Input((12,), name=name) for name in ("query", "document")]
    ends = [layers.Dense(8, activation="tanh", name=f"{tower.name}_tower")(tower) for tower in towers]
    x = layers.Multiply(name="product")(ends)
    return tf_keras.Model(towers, layers.Dense(1, activation="sigmoid", name="match")(x))


def parametric_relu() -> tf_keras.Model:
    """PReLU and LeakyReLU between convolutions."""
    image = _image()
    x = layers.PReLU(shared_axes=[1, 2], name="prelu")(layers.Conv2D(8, 3, 2, name="conv1")(image))
    return _classifier(image, layers.LeakyReLU(0.1, name="leaky")(layers.Conv2D(8, 3, name="conv2")(x)))


def pose() -> tf_keras.Model:
    """Heat maps of key points, from features of two resolutions."""
    image = _image()
    x = _conv(image, 8, "stem", strides=2)
    y = layers.UpSampling2D(name="up")(_conv(x, 8, "low", strides=2))
    return tf_keras.Model(
        image, layers.Conv2D(4, 1, activation="sigmoid", name="heat_maps")(layers.Add(name="s")([x, y]))
    )


ARCHITECTURES: dict[str, Callable[[], tf_keras.Model]] = {
    build.__name__: build
    for build in (
        anomaly_detection,
        attention,
        audio,
        autoencoder,
        convolutions,
        dense_block,
        depthwise_separable,
        detection,
        embedding,
        grouped_convolution,
        gru,
        inception,
        inverted_residual,
        keyword_spotting,
        lstm,
        mixer,
        parametric_relu,
        pose,
        residual,
        segmentation,
        simple_rnn,
        squeeze_and_excite,
        super_resolution,
        two_towers,
        wide_and_deep,
    )
}
