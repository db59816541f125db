"""What single sections of a run's page say, by the documents that there are."""

from typing import Any

from components.report.facts import Facts
from components.report.layout import Section
from components.report.sections import sections

from report_documents import documents


def _section(found: dict[str, Any], name: str) -> Section:
    (section,) = [one for one in sections(Facts(documents=found).root) if one.id == name]
    return section


def _rows(section: Section) -> dict[str, str]:
    return {one.cells[0].text: one.cells[1].text for table in section.tables for one in table.rows}


def _not_calibrated_by_the_converter(by: str) -> dict[str, Any]:
    found = documents()
    found["conversion"] |= {"calibrated": [], "calibration": "", "examples": 0}
    sets = found["conversion"]["calibration_sets"]
    found["conversion"]["calibration_sets"] = [{**sets[0], "by": by}] if by else []
    return found


def test_calibration_says_who_calibrated_when_the_converter_did_not() -> None:
    section = _section(_not_calibrated_by_the_converter("QuantizeTrainer"), "calibration")
    assert section.missing == (
        "The converter calibrated no range: QuantizeTrainer gave all of them, starting from those that it calibrated"
        " with the examples of the next section.",
    )
    assert not {"tensors calibrated", "method", "examples"} & set(_rows(section))


def test_calibration_says_that_training_gave_all_ranges_when_nobody_calibrated() -> None:
    section = _section(_not_calibrated_by_the_converter(""), "calibration")
    assert section.missing == ("The converter calibrated no range: training gave all of them.",)


def test_calibration_shows_how_when_the_converter_calibrated() -> None:
    assert _rows(_section(documents(), "calibration")) | {"method": "min_max", "examples": "300"} == _rows(
        _section(documents(), "calibration")
    )
