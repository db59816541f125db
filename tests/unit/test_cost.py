"""What a run costs: lines by hand-checkable arithmetic, plans that are refused, and the page beside its command."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipelines.__main__ import main
from pipelines.cost.forecast import forecast
from pipelines.cost.growth import Growth, Measurements
from pipelines.cost.plan import Machine, Plan

_DOCS = Path(__file__).parents[2] / "docs"
_PLAN = """
currency = "EUR"
placeholder = false
source = "a price list of today"
storage_per_gb_month = 0.5
months_kept = 2
[machines.beam]
stages = ["StatisticsGen"]
price_per_hour = 3.0
workers = 11
speed = 2.0
efficiency = 0.9
start_minutes = 6
[machines.training]
stages = ["QuantizeTrainer"]
price_per_hour = 7.0
"""


def _measured(tmp_path: Path, changes: dict[str, Any] | None = None) -> Path:
    """StatisticsGen: 20 s + 2 ms, 300 MB + 1 kB, 100 bytes; QuantizeTrainer: 10 s + 1 ms, 500 MB, 10 kB fixed."""
    runs = [
        {
            "examples": count,
            "components": {
                "StatisticsGen": {
                    "seconds": 20 + 0.002 * count,
                    "peak_bytes": 3e8 + 1e3 * count,
                    "written_bytes": 100 * count,
                },
                "QuantizeTrainer": {"seconds": 10 + 0.001 * count, "peak_bytes": 5e8, "written_bytes": 1e4},
            },
        }
        for count in (1_000, 3_000, 10_000)
    ]
    path = tmp_path / "scale.json"
    path.write_text(json.dumps({"about": {"machine": "2 cores"}, "runs": runs, **(changes or {})}))
    return path


def _plan(tmp_path: Path, text: str = _PLAN) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("values", "fixed", "per_example", "deviation"),
    [
        ([5.0, 5.0, 5.0], 5.0, 0.0, 0.0),
        ([6.0, 5.0, 4.0], 5.0, 0.0, 0.2),  # less with more examples is noise, not a saving
        ([1.0, 2.0, 3.0], 0.0, 0.1, 0.0),
        ([0.0, 2.0, 4.0], 0.0, 16 / 140, 1.0),  # through the origin: sum(xy) / sum(xx)
        ([0.0, 0.0, 0.0], 0.0, 0.0, 0.0),
    ],
)
def test_growth_is_the_line_of_least_squares_with_no_negative_part(
    values: list[float], fixed: float, per_example: float, deviation: float
) -> None:
    found = Growth.of([10, 20, 30], values)
    assert found.fixed == pytest.approx(fixed, abs=1e-9)
    assert found.per_example == pytest.approx(per_example, abs=1e-9)
    assert found.deviation == pytest.approx(deviation, abs=1e-9)


def test_forecast_shares_out_what_grows_and_pays_every_machine_from_its_start(tmp_path: Path) -> None:
    measurements = Measurements.read(_measured(tmp_path))
    plan = Plan.read(_plan(tmp_path), ["StatisticsGen", "QuantizeTrainer"])
    found = forecast(measurements, plan, 10**6)
    statistics, trainer = found.stages
    # 11 workers are as 1 + 10 * 0.9 = 10: (20 s + 2000 s / 10) / 2 and 6 minutes.
    assert statistics.hours == pytest.approx((110 + 360) / 3600)
    assert statistics.price == pytest.approx((110 + 360) / 3600 * 11 * 3)
    assert statistics.worker_gb == pytest.approx(0.3 + 1e3 * 1e6 / 11 / 1e9)
    assert trainer.hours == pytest.approx(1010 / 3600)
    assert trainer.price == pytest.approx(1010 / 3600 * 7)
    assert found.measured_hours == pytest.approx((2020 + 1010) / 3600)
    assert found.stored_gb == pytest.approx(0.1 + 1e-5)
    assert found.storage_price == pytest.approx((0.1 + 1e-5) * 0.5 * 2)
    assert found.hours == pytest.approx(statistics.hours + trainer.hours)
    assert found.price == pytest.approx(statistics.price + trainer.price + found.storage_price)
    assert found.worker_gb == pytest.approx(0.5)


def test_forecast_ends_memory_at_its_limit(tmp_path: Path) -> None:
    limited = _PLAN.replace("months_kept = 2", "months_kept = 2\nmemory_limits_gb = {StatisticsGen = 0.35}")
    measurements = Measurements.read(_measured(tmp_path))
    plan = Plan.read(_plan(tmp_path, limited), ["StatisticsGen", "QuantizeTrainer"])
    memory = [forecast(measurements, plan, count).stages[0].worker_gb for count in (110_000, 1_000_000)]
    # 300 MB and 1 kB for each of a worker's examples, of 11 workers.
    assert memory == pytest.approx([0.3 + 0.01, 0.35])


def test_machine_parts_is_one_for_one_worker_whatever_its_efficiency() -> None:
    assert Machine(stages=(), price_per_hour=1, efficiency=0.5).parts == 1
    assert Machine(stages=(), price_per_hour=1, workers=3, efficiency=0.5).parts == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("price_per_hour = 3.0", "price_per_hour = -3.0", r"machine beam: price_per_hour=-3.0 \(0 or more\)"),
        ("efficiency = 0.9", "efficiency = 0", r"machine beam: efficiency=0 \(above 0, at most 1\)"),
        ("speed = 2.0", "speed = 0\nworkers_ = 1", "a field is missing, unknown or of another type"),
        ("workers = 11", "workers = 0", r"machine beam: workers=0 \(at least 1\)"),
        ('["QuantizeTrainer"]', "[]", r"no machine for QuantizeTrainer \(in the stages of one\)"),
        ('["QuantizeTrainer"]', '["QuantizeTrainer", "StatisticsGen"]', r"two machines for StatisticsGen \(one\)"),
        ("price_per_hour = 7.0", "", "a field is missing"),
        ("price_per_hour = 7.0", 'price_per_hour = "7"', "of another type"),
        ("months_kept = 2", "months_kept = inf", r"months_kept=inf \(0 or more\)"),
        (
            "months_kept = 2",
            "months_kept = 2\nmemory_limits_gb = {Other = 1.0}",
            r"memory limit of Other \(one of Stat",
        ),
        (
            "months_kept = 2",
            "months_kept = 2\nmemory_limits_gb = {StatisticsGen = 0.0}",
            r"StatisticsGen: 0.0 \(above 0",
        ),
        ("[machines.beam]", "[machines.beam", "is no TOML"),
    ],
)
def test_plan_names_the_mistake_when_it_is_wrong(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in _PLAN
    with pytest.raises(ValueError, match=message):
        Plan.read(_plan(tmp_path, _PLAN.replace(old, new)), ["StatisticsGen", "QuantizeTrainer"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": [{"examples": 5, "components": {}}]}, r"runs of \[5\] examples; two sizes at least"),
        ({"runs": []}, "is no file of measurements"),
        ({"runs": [{"examples": 5}, {"examples": 6}]}, "is no file of measurements"),
    ],
)
def test_measurements_say_what_is_missing(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Measurements.read(_measured(tmp_path, changes))


def test_cost_shows_hours_memory_and_money_for_each_number_of_examples(tmp_path: Path) -> None:
    given = [str(_measured(tmp_path)), "--plan", str(_plan(tmp_path)), "--examples", "10000", "--examples", "1000000"]
    page = CliRunner().invoke(main, ["cost", *given]).output
    # 470 s of 11 machines at 3, 1010 s at 7, 0.10001 GB for 2 months at 0.5; 0.61 h * 3 * 11 of it for the former.
    assert "| 1,000,000 | 0.84 | 0.41 | 0.5 | 0.1 | 6.4 |" in page
    assert "| StatisticsGen | 11 beam | 3.4 | 4.3 |" in page
    assert "| StatisticsGen | 20.0 | 2,000 | 0% | 300 | 1,000 | 100 |" in page
    assert "a price list of today" in page
    assert "placeholder" not in page
    assert "by 100 times at most" in page


def test_cost_says_that_prices_are_placeholders_by_the_plan_that_ships(tmp_path: Path) -> None:
    page = CliRunner().invoke(main, ["cost", str(_measured(tmp_path))]).output
    assert "**The prices are placeholders" in page
    assert page.count("\n| 1,000,000,000 |") == 1


@pytest.mark.parametrize(("third_s", "noisy"), [(40.0, False), (20.0, True)])
def test_cost_says_which_components_were_measured_too_badly(third_s: float, noisy: bool, tmp_path: Path) -> None:
    path = _measured(tmp_path)
    found = json.loads(path.read_text())
    for run, seconds in zip(found["runs"], (80.0, 26.0, third_s) if noisy else (22.0, 26.0, third_s), strict=True):
        run["components"]["StatisticsGen"]["seconds"] = seconds
    path.write_text(json.dumps(found))
    page = CliRunner().invoke(main, ["cost", str(path)]).output
    assert ("**Off by more than 25%: StatisticsGen. Measure again" in page) == noisy


def test_page_in_docs_is_what_its_command_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (_DOCS / "cost.md").read_text()
    command = page.split("`")[1].split()
    assert command[:4] == ["python", "-m", "pipelines", "cost"]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "cost.json").write_bytes((_DOCS / "cost.json").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, command[3:]).exit_code == 0
    assert (tmp_path / "docs" / "cost.md").read_text() == page
