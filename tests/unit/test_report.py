"""The page of a run: its numbers are those of the documents, its texts do no harm, and it says what is missing."""

import functools
import html.parser
import itertools
import json
import re
from typing import Any

import numpy as np
import pytest

from components.report import charts, derived
from components.report.facts import Facts
from components.report.layout import Branch
from components.report.page import render
from components.report.sections import sections

from report_documents import HOSTILE, PICTURE, documents, hostile

_LARGEST_BYTES = 2_000_000


class _Page(html.parser.HTMLParser):
    """What a browser would see of a page.

    Attributes:
      numbers: Of each `data` element its source, its exact value and its text.
      tags: Names of all elements, in order.
      texts: Texts by the id of their section.
      headings: Levels of the headings, in order.
      marked: Texts of what stands out, in order.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.numbers: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.texts: dict[str, str] = {"": ""}
        self.headings: list[int] = []
        self.marked: list[str] = []
        self._section, self._open = "", {"data": False, "mark": False}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        if tag == "section":
            self._section = given["id"]
            self.texts[self._section] = ""
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "data":
            self.numbers.append((given["data-source"], given["value"], ""))
            self._open["data"] = True
        if given.get("class") == "mark":
            self.marked.append("")
            self._open["mark"] = True

    def handle_endtag(self, tag: str) -> None:
        self._open["data"] &= tag != "data"
        self._open["mark"] &= tag != "strong"

    def handle_data(self, data: str) -> None:
        self.texts[self._section] += data
        if self._open["data"]:
            source, value, text = self.numbers[-1]
            self.numbers[-1] = source, value, text + data
        if self._open["mark"]:
            self.marked[-1] += data


def _rendered(found: dict[str, Any]) -> str:
    return render(Facts.from_json(Facts(documents=found).to_json()))


@functools.cache
def _usual() -> str:
    return _rendered(documents())


def _at(found: Any, pointer: str) -> Any:
    """What a JSON pointer points at, by RFC 6901."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = found[int(name)] if isinstance(found, list) else found[name]
    return found


def _shown(text: str) -> float:
    return float(text.rstrip("%").replace(",", "")) / (100 if text.endswith("%") else 1)


def test_page_shows_the_numbers_of_the_documents_and_no_others() -> None:
    found = documents()
    page = _Page(_rendered(found))
    assert len(page.numbers) > 200
    for source, exact, text in page.numbers:
        value = _at(found, source)
        assert json.loads(exact) == value, source
        digits = re.sub(r"[^0-9]", "", text.partition("e")[0]).lstrip("0")
        # Of what is shown at least one digit is of the value, and it is rounded in the last digit and no further.
        assert _shown(text) == pytest.approx(value, abs=5.1e-5, rel=0.51 * 10.0 ** (1 - max(1, len(digits)))), source
    told = {source for source, _, _ in page.numbers}
    for needed in (
        "/paired/paired/0/accuracy/low",
        "/paired/paired/0/by_class/2/examples",
        "/flips/flips/0/pairs/1/only_float_right",
        "/flips/flips/0/examples/0/integer/score",
        "/flips/flips/0/examples/1/margin",
        "/compiled_model/size_bytes",
        "/histories/qat/val_loss/0",
        "/attribution/layers/1/sqnr_db",
        "/attribution/layers/1/histogram/15",
        "/weights/0/histogram/31",
        "/representative/inputs/image/split_beyond_sample",
        "/representative/distances/0/distance",
        "/conversion/calibration_sets/0/examples",
        "/drift/distances/0/distance",
        "/receipts/0/seconds",
        "/contract/outputs/0/zero_point",
        "/compile_report/latency/ms",
        "/measurements/facts/latency_ms",
    ):
        assert needed in told


def test_charts_have_all_their_numbers_in_a_table_and_are_described() -> None:
    for section in sections(Facts(documents=documents()).root):
        for figure in section.figures:
            assert figure.alt.endswith(".")
            assert figure.table.rows
            # What is written at a bar is in the table, too.
            shown = {cell.text for one in figure.table.rows for cell in one.cells}
            for number in re.findall(r"(?<![\w.])[+-]?\d+\.\d{2,}(?![\w.])", figure.alt):
                assert number in shown


def _flips(found: dict[str, Any]) -> Any:
    (section,) = [one for one in sections(Facts(documents=found).root) if one.id == "flips"]
    return section


def test_examples_that_flipped_are_shown_with_picture_label_answers_and_scores() -> None:
    (table,) = _flips(documents()).tables
    assert table.head == ("image", "age", "label", "float says", "score", "integer says", "score", "margin")
    picture, *told = table.rows[0].cells
    assert (picture.image, picture.path) == (PICTURE, "/flips/flips/0/examples/0/inputs/0/picture")
    # Classes are told by the contract's labels.
    assert [cell.text for cell in told] == ["0.5, 41", "emu", "emu", "0.6250", "cat", "0.5312", "0.3750"]
    assert table.rows[1].cells[1].text == "0.25, " * 8 + "..."
    assert f'<img class="picture" src="{PICTURE}" alt="what the models saw as image"' in _usual()


def test_confusion_of_flips_says_from_which_class_to_which() -> None:
    _, confusion = _flips(documents()).figures
    assert [[cell.text for cell in row.cells] for row in confusion.table.rows] == [
        ["cat", "dog", "2", "1", "1"],
        ["emu", "cat", "1", "1", "0"],
    ]
    assert "the most frequent: cat to dog, 2 examples." in confusion.alt
    assert re.findall(r">(\d)</text>", confusion.svg) == ["2", "1"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda found: found.pop("flips"), "From which class to which is not recorded."),
        (lambda found: found["flips"]["flips"][0].update(pairs=[], examples=[]), "No example flipped."),
        (lambda found: found["flips"]["flips"][0].update(examples=[]), "Nobody asked for examples that flipped."),
        (lambda found: found["paired"]["paired"][0].update(by_class=[]), "There are no classes to count flips by."),
    ],
)
def test_flips_say_what_is_missing(change: Any, told: str) -> None:
    found = documents()
    change(found)
    assert told in _flips(found).missing


@pytest.mark.parametrize("source", ["data:image/svg+xml;base64,PHN2Zz4=", "data:image/png;base64,x' onload='", "a.png"])
def test_picture_is_left_out_when_it_is_no_png(source: str) -> None:
    found = documents()
    for example in found["flips"]["flips"][0]["examples"]:
        example["inputs"][0]["picture"] = source
    assert "img" not in _Page(_rendered(found)).tags


def test_page_says_that_a_model_is_not_blessed_when_a_gate_or_the_smoke_test_refuses_it() -> None:
    found = documents()
    assert "Not blessed" in _Page(_rendered(found)).texts[""]
    found["verdict"]["blessed"] = True
    assert "Not blessed" not in _Page(_rendered(found)).texts[""]
    found["smoke_test"]["blessed"] = False
    assert "Not blessed" in _Page(_rendered(found)).texts[""]
    assert "Not blessed" in _Page(_rendered({})).texts[""]


def test_reasons_that_refuse_come_first() -> None:
    text = _Page(_usual()).texts["verdict"]
    assert text.index("accuracy is 0.7250, below 0.8") < text.index("holds: all")


def test_first_op_on_the_cpu_is_marked_and_later_ones_are_not_the_first() -> None:
    page = _Page(_usual())
    assert [mark for mark in page.marked if mark in ("first on the CPU", "CPU")] == ["first on the CPU", "CPU"]
    assert "op 1, CUMSUM (layer_1): Operation not supported. Move it." in page.texts["target"]


def test_worst_layers_are_marked_without_outputs_and_layers_without_noise() -> None:
    (signals,) = [one for one in sections(Facts(documents=documents()).root) if one.id == "layers"]
    marked = [one.cells[0].text for one in signals.figures[0].table.rows if one.mark == "worst"]
    assert marked == ["conv", "dense", "relu"]  # 41.25, 20.5 and 33 dB; softmax has 50, "exact" none


def test_page_says_which_examples_calibrated_and_why_no_drift_was_measured() -> None:
    found = documents()
    text = _Page(_rendered(found)).texts["examples"]
    assert ("ab" * 32 in text, "0.0625" in text, "not recorded" in text) == (True, True, True)
    found["drift"] = {"format": 1, "distances": [], "no_baseline": "there is no last blessed model yet"}
    assert "there is no last blessed model yet" in _Page(_rendered(found)).texts["examples"]


def test_page_says_so_in_every_section_when_nothing_is_known() -> None:
    for section in sections(Facts(documents={}).root):
        assert section.missing, section.id
        assert not section.figures
    page = _Page(_rendered({}))
    assert page.numbers == []
    assert "not measured" in page.texts[""]


@pytest.mark.extended
@pytest.mark.parametrize("name", sorted(documents()))
def test_page_is_made_when_one_document_is_missing(name: str) -> None:
    found = documents()
    del found[name]
    page = _Page(_rendered(found))
    assert not [source for source, _, _ in page.numbers if source.startswith(f"/{name}/")]


def _names(branch: Branch) -> Any:
    return [branch.name, *map(_names, branch.children)]


def _tree(found: dict[str, Any]) -> Branch | None:
    (section,) = [one for one in sections(Facts(documents=found).root) if one.id == "lineage"]
    return section.tree


def test_lineage_is_a_tree_from_the_pushed_file_to_the_examples() -> None:
    found = documents()
    found["integer_model"] |= {"training_examples_sha256": "e" * 64, "examples_span": 3, "representative_examples": 300}
    trained = ["model with fake quantization", ["float model", ["training examples"]]]
    tree = _tree(found)
    assert tree is not None
    assert _names(tree) == ["pushed file", ["integer file", trained, ["calibration sample"]]]
    assert [(name, cell.text) for name, cell in tree.facts] == [("sha256", "c" * 64), ("by", "a compiler")]
    assert f'data-source="/integer_model/training_examples_sha256">{"e" * 64}' in _rendered(found)
    # All ranges come from training: nothing was calibrated, whatever was asked for.
    found["conversion"]["calibrated"] = []
    assert _names(_tree(found)) == ["pushed file", ["integer file", trained]]
    # Quantized after training: the integer file was made of the float model.
    found["integer_model"]["parent_sha256"] = "f" * 64
    assert _names(_tree(found)) == ["pushed file", ["integer file", trained[1]]]
    del found["compiled_model"]
    assert _names(_tree(found)) == ["integer file", trained[1]]


def test_chain_is_said_to_be_broken_when_the_pushed_file_has_another_parent() -> None:
    found = documents()
    assert "chain is broken" not in _rendered(found)
    found["compiled_model"]["parent_sha256"] = "d" * 64
    assert "chain is broken" in _rendered(found)


def test_page_runs_nothing_when_every_text_is_hostile() -> None:
    page = _rendered(hostile(documents()))
    seen = _Page(page)
    assert "script" not in seen.tags
    assert HOSTILE.replace("\x01", "\ufffd") in seen.texts["layers"]
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", page)
    assert {tag for tag in seen.tags if tag in ("img", "iframe", "object", "embed", "form", "base")} == set()


def test_page_needs_nothing_else_and_is_the_same_each_time() -> None:
    page = _usual()
    assert page == _rendered(documents())
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r"(?i)(src|href|url)\s*[=(]\s*[\"']?(https?:)?//", without_namespaces)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#|aria-labelledby=")([^")]+)', page)) <= set(ids)
    levels = _Page(page).headings
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert levels.count(1) == 1


@pytest.mark.extended
def test_page_stays_small_when_the_model_is_large() -> None:
    found = documents()
    pair, layer, op = found["paired"]["paired"][0], found["attribution"]["layers"][0], found["target_ops"][0]
    pair["by_class"] = pair["by_class"][:1] * 1_000
    found["paired"]["paired"] += [{**pair, "slice": [["hour", str(hour)]]} for hour in range(2_000)]
    found["attribution"]["layers"] = [{**layer, "name": f"block_{i}_conv_with_a_long_name"} for i in range(300)]
    found["target_ops"] = [{**op, "index": i} for i in range(3_000)]
    flips = found["flips"]["flips"]
    # A picture of 64x64 pixels of noise in three colours: 12,288 bytes, a third more in base64.
    flips[0]["examples"][0]["inputs"][0]["picture"] = "data:image/png;base64," + "A" * 16_400
    flips[0]["examples"] = flips[0]["examples"][:1] * 50
    flips[0]["pairs"] = [
        {**flips[0]["pairs"][0], "float": said, "integer": ours} for said in range(40) for ours in range(40)
    ]
    found["flips"]["flips"] = [{**flips[0], "output": f"out{number}"} for number in range(3)]
    found["histories"] = {loop: {"loss": [0.5] * 300} for loop in ("float", "selective", "qat", "mixed")}
    page = _rendered(found)
    assert len(page.encode()) < _LARGEST_BYTES
    assert "120 more examples are in flips.json alone." in page
    assert "1550 rarer pairs of classes of output out0 are in flips.json alone." in page
    assert "Only the first 400 of 3000 ops are drawn." in page
    assert "1702 slices of higher change are in paired.json alone." in page


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2, "documents": {}}', '{"format": 1, "documents": 3}'])
def test_facts_are_refused_when_they_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="run the pipeline again"):
        Facts.from_json(text)


def test_marked_bars_differ_by_more_than_colour() -> None:
    plain, marked = (
        charts.bars([charts.Bar(label="a", value=1.0, text="1", marked=is_marked)], "dB") for is_marked in (False, True)
    )
    assert "<pattern" in marked
    assert "<pattern" not in plain


def test_weight_histograms_count_the_integers_of_the_worst_layers() -> None:
    tf_keras = pytest.importorskip("tf_keras")
    from components.quantization import convert
    from components.quantization.conversion import flatbuffer

    dense = tf_keras.layers.Dense(2, use_bias=False, input_shape=(3,))
    model = tf_keras.Sequential([dense])
    # Per tensor the largest weight, 1.27, is 127, so that the scale is 0.01.
    dense.set_weights([np.array([[1.27, 0.0], [-1.27, 0.09], [0.01, 0.02]], np.float32)])
    tflite = convert(model, "full_int8_per_tensor", representative_dataset=[[[0.0, 0.5, 1.0]]])
    (op,) = flatbuffer.read_subgraphs(tflite)[0].ops
    tensor = flatbuffer.read_subgraphs(tflite)[0].tensors[op.outputs[0]].name
    layers = [{"name": "dense", "tensor": tensor, "sqnr_db": 3.0}, {"name": "output y", "tensor": tensor, "sqnr_db": 1}]
    (found,) = derived.weight_histograms(tflite, {"layers": layers})
    # Parts of eight: -127 is in the first, 0, 1 and 2 in the 17th (0..7), 9 in the 18th, 127 in the last.
    expected = {0: 1, 16: 3, 17: 1, 31: 1}
    assert {index: count for index, count in enumerate(found["histogram"]) if count} == expected
    assert (found["name"], found["values"], found["low"], found["high"]) == ("dense", 6, -128, 127)
    assert found["utilisation"] == pytest.approx(6 / 256)
    (placed,) = derived.target_ops(tflite, "edge_tpu")
    assert (placed["op"], placed["on_target"], placed["index"]) == ("FULLY_CONNECTED", True, 0)
