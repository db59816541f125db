"""Which way a metric of TFMA or Keras is better, by the name of its class, so that no gate holds it the wrong way."""

import re
from typing import Literal

Direction = Literal["higher", "lower", ""]

# The last words of names, of users' own too: `Inaccuracy` is no `Accuracy`.
_HIGHER_WORD = re.compile("(Accuracy|AUC|FBetaScore|F1Score|IoU|Precision|R2Score|Recall|Sensitivity|Specificity)$")
_LOWER_WORD = re.compile("(Error|Loss|Cross[eE]ntropy|Hinge|Poisson|Divergence|Huber|LogCosh)$")
# What is told at a value of another figure, as `RecallAtPrecision`.
_AT = re.compile(r"(?<=[a-z0-9])At(?=[A-Z]).*")
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
      class_name: Of a class of TFMA, Keras or a user, with its module or without. What is of a module of losses is one.

    >>> direction("SparseCategoricalAccuracy"), direction("FNR"), direction("MeanLabel")
    ('higher', 'lower', '')
    >>> direction("CosineSimilarity"), direction("tf_keras.losses.CosineSimilarity")
    ('higher', 'lower')
    """
    module, _, name = class_name.rpartition(".")
    if module.endswith("losses"):
        return "lower"
    if name in _NEITHER:
        return ""
    if name in _HIGHER:
        return "higher"
    if name in _LOWER:
        return "lower"
    told = _AT.sub("", name)
    if _HIGHER_WORD.search(told):
        return "higher"
    return "lower" if _LOWER_WORD.search(told) else ""
