"""Which way a metric of TFMA or Keras is better, by the name of its class, so that no gate holds it the wrong way."""

from typing import Literal

Direction = Literal["higher", "lower", ""]

# Words in the names of classes, of users' own too.
_HIGHER_WORDS = ("accuracy", "auc", "precision", "recall", "f1score", "fbetascore", "iou", "r2score", "specificity")
_LOWER_WORDS = ("error", "loss", "crossentropy", "hinge", "poisson", "divergence", "huber", "logcosh")
# What words do not tell: https://www.tensorflow.org/tfx/model_analysis/api_docs/python/tfma/metrics
_HIGHER = frozenset(
    [
        "Agreement",
        "CoefficientOfDiscrimination",
        "CosineSimilarity",
        "DiagnosticOddsRatio",
        "ExactMatch",
        "FowlkesMallowsIndex",
        "Informedness",
        "Markedness",
        "MatthewsCorrelationCoefficient",
        "ModelCosineSimilarity",
        "NDCG",
        "NPV",
        "NegativePredictiveValue",
        "PPV",
        "PositiveLikelihoodRatio",
        "RelativeCoefficientOfDiscrimination",
        "SemanticSegmentationTruePositive",
        "SquaredPearsonCorrelation",
        "TN",
        "TNR",
        "TP",
        "TPR",
        "ThreatScore",
        "TrueNegatives",
        "TruePositives",
    ]
)
_LOWER = frozenset(
    [
        "BooleanFlipRates",
        "FN",
        "FNR",
        "FP",
        "FPR",
        "FallOut",
        "FalseDiscoveryRate",
        "FalseNegatives",
        "FalseOmissionRate",
        "FalsePositives",
        "MinLabelPosition",
        "MissRate",
        "NegativeLikelihoodRatio",
        "PrevalenceThreshold",
        "SemanticSegmentationFalsePositive",
        "SymmetricFlipRate",
        "SymmetricPredictionDifference",
    ]
)
# The threshold at which a recall is reached is no quality.
_NEITHER = frozenset(("ObjectDetectionThresholdAtRecall", "ThresholdAtRecall"))


def direction(class_name: str) -> Direction:
    """Returns which way a metric is better; "" where its class does not tell.

    Args:
      class_name: Of a class of TFMA, Keras or a user, without its module.

    >>> direction("SparseCategoricalAccuracy"), direction("FNR"), direction("MeanLabel")
    ('higher', 'lower', '')
    """
    if class_name in _NEITHER:
        return ""
    if class_name in _HIGHER:
        return "higher"
    if class_name in _LOWER:
        return "lower"
    name = class_name.lower()
    higher, lower = (any(word in name for word in words) for words in (_HIGHER_WORDS, _LOWER_WORDS))
    if higher == lower:
        return ""
    return "higher" if higher else "lower"
