import numpy as np
import pytest

from infra.bench.cifar10_report import Report
from infra.bench.paired import difference, mcnemar


def test_mcnemar_is_the_exact_binomial_p_value() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(3, 3) == 1.0
    assert mcnemar(0, 5) == 2 / 32
    assert mcnemar(1, 7) == mcnemar(7, 1) == 2 * (1 + 8) / 256
    assert mcnemar(400, 400) == 1.0


def test_seeds_share_their_examples_when_a_difference_is_pooled() -> None:
    right = np.array([[1, 1, 0, 1], [1, 0, 0, 1]], bool)
    baseline = np.array([[1, 0, 0, 1], [1, 0, 1, 1]], bool)
    found = difference(right, baseline)
    assert found.by_seed == (25.0, -25.0)
    assert found.points == 0.0
    # By example the mean differences are 0, 1/2, -1/2 and 0.
    assert found.standard_error == pytest.approx(100 * np.sqrt(0.5 / 3) / 2)
    assert found.p_by_seed == (1.0, 1.0)


def test_report_says_which_bar_fails() -> None:
    labels = np.arange(1000) % 10
    wrong = np.where(np.arange(1000) < 5, 9 - labels, labels)
    names = ("QAT in Keras", "QAT int8", "QAT int8, default kernels")
    report = str(Report({1: {"float": labels, **dict.fromkeys(names, wrong)}}, labels))
    assert "| QAT int8 | 99.50 | 99.50 |" in report
    assert "| QAT int8 - float | -0.50 | 0.22 | -0.50 | 0.06 |" in report
    assert "fails: QAT int8 at most 0.2 points below float: 0.50 below" in report
    assert "fails: QAT int8, default kernels at most 0.2 points below float: 0.50 below" in report
    assert "holds: agreement of QAT in Keras and QAT int8, default kernels of at least 99 %: 100.00 %" in report
