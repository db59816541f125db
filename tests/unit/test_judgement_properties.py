"""Making a model worse never turns a refusal into a blessing, whatever the gates."""

import collections
import dataclasses
import datetime
import math
import random
from collections.abc import Callable

import numpy as np
import pytest

from components.evaluation.degenerate import OutputSums
from components.evaluation.gates import Gates, Override
from components.evaluation.judgement import judge
from components.evaluation.measurements import FLOAT, INTEGER, LAST_BLESSED, Cell, Measurements, Paired, Slice
from components.evaluation.paired_statistics import Examples, PairedSums

_DAY = datetime.date(2026, 6, 1)
_SLICES: tuple[Slice, ...] = ((), (("label", "0"),), (("label", "1"),))
_OTHERS = (FLOAT, LAST_BLESSED)

# Every form of gate on these; those that a worse model keeps more easily, such as 'accuracy <= x', cannot be made.
_FORMS = (
    "accuracy{cut} >= {share}",
    "loss{cut} <= {share}",
    "accuracy{cut} drop{vs} <= {small}",
    "loss{cut} rise{vs} <= {small}",
    "accuracy{cut} drop{vs} <= {small} at 95%",
    "agreement{cut}{vs} >= {share}",
    "better{cut}{vs} >= {count}",
    "worse{cut}{vs} <= {count}",
    "ties{cut} <= {count}",
    "ties{cut} rise{vs} <= {count}",
    "calibration_error{cut} <= {share}",
    "calibration_error{cut} rise{vs} <= {small}",
    "model_bytes <= {bytes}",
    "arena_bytes <= {bytes}",
    "latency_ms <= {count}",
    "macs_on_target >= {share}",
    "first_cpu_op in none, SOFTMAX",
)


def _gates(rng: random.Random) -> Gates:
    chosen = rng.sample(_FORMS, rng.choice((0, 1, 1, 1, 2, 3)))
    texts = [
        form.format(
            cut=rng.choice(("", "[label=0]", "[label=*]")),
            vs=rng.choice(("", " vs last_blessed")),
            share=round(rng.random(), 2),
            small=round(rng.uniform(0.01, 0.5), 2),
            count=rng.randrange(1, 20),
            bytes=rng.randrange(1, 100),
        )
        for form in chosen
    ]
    gates = Gates.of(*texts)
    overrides = ()
    if texts and rng.random() < 0.2:
        until = _DAY + datetime.timedelta(days=rng.choice((-1, 0)))
        overrides = (Override(gate=texts[0], because="a test", until=until),)
    return dataclasses.replace(gates, bless_ungated=rng.random() < 0.2, overrides=overrides)


def _paired(rng: random.Random) -> Paired:
    difference = rng.uniform(-0.3, 0.3)
    examples = rng.choice((5, 50, 500))
    return Paired(
        examples=examples,
        effective_examples=examples * rng.choice((0.5, 1.0)),
        agreement=rng.random(),
        better=rng.randrange(20),
        worse=rng.randrange(20),
        difference=difference,
        low=difference - rng.uniform(0, 0.2),
        high=difference + rng.uniform(0, 0.2),
        confidence=0.95,
        mcnemar_p=rng.random(),
        ties=rng.randrange(20),
        other_ties=rng.randrange(20),
        calibration_error=rng.random(),
        other_calibration_error=rng.random(),
    )


def _measured(rng: random.Random) -> Measurements:
    baseline = rng.random() < 0.7
    models = (INTEGER, *_OTHERS) if baseline else (INTEGER, FLOAT)
    facts: dict[str, float | str] = {
        "model_bytes": float(rng.randrange(100)),
        "arena_bytes": float(rng.randrange(100)),
        "latency_ms": rng.uniform(0, 20),
        "latency_host": "h",
        "latency_kernels": "k",
        "latency_threads": 1.0,
        "macs_on_target": rng.random(),
        "first_cpu_op": rng.choice(("", "SOFTMAX")),
    }
    return Measurements(
        metrics={
            Cell(model=model, slice=cut): {"accuracy": rng.random(), "loss": rng.random()}
            for model in models
            for cut in _SLICES
        },
        examples=dict.fromkeys(_SLICES, 100),
        paired={(model, "", cut): _paired(rng) for model in models if model != INTEGER for cut in _SLICES},
        incompatible=("input 'x' is new",) if not baseline and rng.random() < 0.5 else (),
        facts=facts,
    )


def _lower_metric(rng: random.Random, measured: Measurements) -> Measurements:
    cell = Cell(model=INTEGER, slice=rng.choice(_SLICES))
    values = dict(measured.metrics[cell])
    if not values:
        return measured
    worse = rng.choice(
        (
            {"accuracy": values["accuracy"] * rng.random()},
            {"loss": values["loss"] + rng.random()},
            {"accuracy": math.nan},
        )
    )
    return dataclasses.replace(measured, metrics={**measured.metrics, cell: {**values, **worse}})


def _worse_pair(rng: random.Random, measured: Measurements) -> Measurements:
    key = rng.choice(sorted(measured.paired))
    one = measured.paired[key]
    lost = rng.uniform(0, 0.3)
    flips = rng.randrange(10)
    worse = rng.choice(
        (
            {"agreement": one.agreement * rng.random()},
            {"worse": one.worse + flips, "difference": one.difference - lost, "low": one.low - lost},
            {"better": max(0, one.better - flips), "difference": one.difference - lost, "low": one.low - lost},
            {"low": one.low - lost},
            {"low": math.nan},
            {"ties": one.ties + flips},
            {"calibration_error": one.calibration_error + lost},
        )
    )
    return dataclasses.replace(measured, paired={**measured.paired, key: dataclasses.replace(one, **worse)})


def _worse_file(rng: random.Random, measured: Measurements) -> Measurements:
    facts = dict(measured.facts)
    name = rng.choice(("model_bytes", "arena_bytes", "latency_ms", "macs_on_target", "first_cpu_op"))
    if name not in facts:
        return measured
    if name == "first_cpu_op":
        facts[name] = "CONV_2D"
    elif name == "macs_on_target":
        facts[name] = float(facts[name]) * rng.random()
    else:
        facts[name] = float(facts[name]) + rng.randrange(50)
    return dataclasses.replace(measured, facts=facts)


def _less_known(rng: random.Random, measured: Measurements) -> Measurements:
    if rng.random() < 0.5:
        name = rng.choice(sorted(measured.facts))
        return dataclasses.replace(measured, facts={key: fact for key, fact in measured.facts.items() if key != name})
    cell = Cell(model=INTEGER, slice=rng.choice(_SLICES[1:]))
    return dataclasses.replace(measured, metrics={**measured.metrics, cell: {}})


def _degenerate(rng: random.Random, measured: Measurements) -> Measurements:
    kind = rng.choice(("constant", "one class", "saturated", "not a number"))
    return dataclasses.replace(measured, degenerate={(INTEGER, ""): (kind,)})


_WORSE: tuple[Callable[[random.Random, Measurements], Measurements], ...] = (
    _lower_metric,
    _worse_pair,
    _worse_file,
    _less_known,
    _degenerate,
)


@pytest.mark.parametrize("seed", range(20))
def test_judge_never_blesses_a_worse_model_when_it_refused_a_better_one(seed: int) -> None:
    rng = random.Random(seed)
    seen: collections.Counter[tuple[bool, bool]] = collections.Counter()
    for _ in range(300):
        gates, measured = _gates(rng), _measured(rng)
        before = judge(gates, measured, _DAY).blessed
        for _ in range(rng.randrange(1, 4)):
            worse = rng.choice(_WORSE)(rng, measured)
            after = judge(gates, worse, _DAY).blessed
            assert before or not after, (gates, measured, worse)
            seen[before, after] += 1
            before, measured = after, worse
    # Neither would show anything if all were refused, or nothing ever changed.
    assert min(seen[True, True], seen[True, False], seen[False, False]) >= 30


@pytest.mark.parametrize("seed", range(5))
def test_judge_never_blesses_under_more_gates_when_it_refused_under_fewer(seed: int) -> None:
    rng = random.Random(seed)
    changed = 0
    for _ in range(300):
        gates, measured = _gates(rng), _measured(rng)
        more = gates.updated([f"accuracy[label=1] >= {rng.random():.3f}"])
        if gates.bounds and any(
            reason.gate and reason.code != "no_baseline" for reason in judge(gates, measured, _DAY).reasons
        ):
            before, after = (judge(one, measured, _DAY).blessed for one in (gates, more))
            assert before or not after, (gates, more, measured)
            changed += before and not after
    assert changed >= 10


def _judged_by_decisions(labels: np.ndarray, decided: np.ndarray, parent: np.ndarray, gates: Gates) -> bool:
    """The verdict on a classifier by what it decides for each example, as an evaluation comes to it."""
    noise = np.random.default_rng(0).uniform(0.1, 0.2, (len(labels), labels.max() + 1))
    scores, float_scores = (noise + 0.6 * np.eye(labels.max() + 1)[of] for of in (decided, parent))
    outputs = OutputSums.of(labels, scores, float_scores)
    examples = Examples(labels=labels, scores=scores, other_scores=float_scores, weights=np.ones(len(labels)))
    accuracies = {INTEGER: (decided == labels).mean(), FLOAT: (parent == labels).mean()}
    measured = Measurements(
        metrics={Cell(model=name): {"accuracy": float(value)} for name, value in accuracies.items()},
        examples={(): len(labels)},
        paired={(FLOAT, "", ()): PairedSums.of(examples).paired(0.95)},
        degenerate={(INTEGER, ""): outputs.degenerate()} if outputs.degenerate() else {},
    )
    return judge(gates, measured, _DAY).blessed


def test_wrong_decisions_in_place_of_right_ones_never_turn_a_refusal_into_a_blessing() -> None:
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        classes = random.integers(2, 5)
        shares = random.dirichlet(np.full(classes, 0.5)) * 0.8 + 0.2 / classes
        labels = np.sort(random.choice(classes, 600, p=shares))
        parent = np.where(random.random(600) < 0.95, labels, random.integers(0, classes, 600))
        collapsed = np.full(600, random.integers(0, classes))
        decided = np.where(random.random(600) < random.choice([0.0, 0.01, 0.1, 0.97]), parent, collapsed)
        gates = Gates.of(
            f"accuracy >= {random.uniform(0.1, 0.9):.2f}", f"accuracy drop <= {random.uniform(0, 0.6):.2f}"
        )
        if _judged_by_decisions(labels, decided, parent, gates):
            continue
        refused += 1
        right = np.flatnonzero(decided == labels)
        spoilt = random.choice(right, random.integers(1, len(right) + 1), replace=False)
        worse = decided.copy()
        worse[spoilt] = (labels[spoilt] + random.integers(1, classes, len(spoilt))) % classes
        assert not _judged_by_decisions(labels, worse, parent, gates)
    assert 50 < refused < 290
