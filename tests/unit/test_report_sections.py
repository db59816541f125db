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


def test_sizes_are_named_so_that_those_of_the_ladder_are_not_taken_for_them() -> None:
    found = documents()
    found["float_model"]["size_bytes"], found["compiled_model"]["size_bytes"] = 175_604, 49_536
    found["integer_model"]["size_bytes"] = 49_536
    figure = _section(found, "size").figures[0]
    assert [(one.cells[0].text, one.cells[1].text) for one in figure.table.rows] == [
        ("float SavedModel's variables", "175,604"),
        ("integer file with metadata", "49,536"),
        ("pushed file with metadata", "49,536"),
    ]
    (note,) = _section(found, "ladder").notes
    assert "float weights alone" in note
    assert "without metadata" in note


def test_environment_says_what_the_training_ran_on_and_what_the_digest_is() -> None:
    found = documents()
    found["compiled_model"] |= {
        "tfx_qat_version": "0.1.0+d54a1d28c4c8",
        "training_python_version": "3.10.12",
        "training_platform": "Linux-6.1.0-x86_64-with-glibc2.36",
    }
    section = _section(found, "environment")
    expected = {"training python": "3.10.12", "training platform": "Linux-6.1.0-x86_64-with-glibc2.36"}
    assert _rows(section) | expected == _rows(section)
    assert section.tables[0].caption == (
        "Toolchain; what stands behind the + of tfx-qat is a digest of its Python sources, no commit"
    )


def test_fake_quantization_keeps_not_evaluated_where_the_run_did_not_evaluate_it() -> None:
    found = documents()  # of an evaluation without that model
    rows = {one.cells[0].text: one for one in _section(found, "accuracy").figures[0].table.rows}
    trained = rows["fake quantization (trainer)"]
    assert [cell.text for cell in trained.cells[2:4]] == ["not evaluated"] * 2
    del found["integer_model"]["parent_eval_accuracy"]
    rows = {one.cells[0].text: one for one in _section(found, "accuracy").figures[0].table.rows}
    assert rows["fake quantization (trainer)"].cells[1].text == "not evaluated"
