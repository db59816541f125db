"""The JSON documents that a page is made of, and values of them that know where they were read.

A page shows what is in these documents and computes nothing. A document that is not there, as the coverage of a
calibration that nobody needed, is missing, and so is everything in it.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from components.evaluation.measurements import FLIPS_FILE, MEASUREMENTS_FILE

FORMAT = 1
_PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+=*")
FACTS_FILE = "report.json"

FILES: Mapping[str, tuple[str, str]] = {
    "verdict": ("blessing", "verdict.json"),
    "smoke_test": ("infra_blessing", "verdict.json"),
    "measurements": ("evaluation", MEASUREMENTS_FILE),
    "paired": ("evaluation", "paired.json"),
    "flips": ("evaluation", FLIPS_FILE),
    "float_model": ("float_model", "facts.json"),
    "integer_model": ("tflite_model", "facts.json"),
    "conversion": ("tflite_model", "conversion.json"),
    "audit": ("tflite_model", "audit.json"),
    "attribution": ("tflite_model", "attribution.json"),
    "representative": ("tflite_model", "representative.json"),
    "contract": ("tflite_model", "Format-Serving/io_contract.json"),
    "compiled_model": ("compiled_model", "facts.json"),
    "compile_report": ("compiled_model", "compile_report.json"),
    "target_ops": ("compiled_model", "mapping.json"),
    "drift": ("drift", "drift.json"),
    "receipts": ("model_run", "receipts.json"),
}
"""Documents by name: the artifact that holds one, and its file there."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a page is made of.

    Attributes:
      documents: Those of `FILES` that are there, by name; "histories", of each training loop, by its name;
        "weights" and "examples", and "target_ops" of a model that was not given to TargetCompiler, as
        `components/report/derived.py` and the evaluator make them; of a run for several targets "targets", with
        documents of all of them by target, see `components/report/sections/targets.py`.
    """

    documents: Mapping[str, Any]

    @property
    def root(self) -> "Node":
        """All documents as one value."""
        return Node(self.documents)

    def to_json(self) -> str:
        """Returns the text of `FACTS_FILE`."""
        return json.dumps({"format": FORMAT, "documents": self.documents}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Facts":
        """Reads it.

        Raises:
          ValueError: If it is none, or of another format.
        """
        try:
            read = json.loads(text)
            found, documents = read["format"], dict(read["documents"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{FACTS_FILE} cannot be read: {error}; run the pipeline again") from error
        if found != FORMAT:
            raise ValueError(f"{FACTS_FILE}: got format {found!r}, expected {FORMAT}; run the pipeline again")
        return cls(documents=documents)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A text on the page.

    Attributes:
      text: What is shown.
      path: Where the value behind it was read, as a JSON pointer (RFC 6901) into the documents; "" for words of the
        page's own.
      exact: The value as JSON has it, of a number; "" of a text.
      missing: Whether there is no such value.
      image: A PNG as a data URI, which is shown, with the text for those who do not see it; "" for none.
    """

    text: str
    path: str = ""
    exact: str = ""
    missing: bool = False
    image: str = ""


class Node:
    """A value in the documents and the path that it was read by. What is not there, or null, is missing.

    >>> root = Node({"layers": [{"name": "conv", "sqnr_db": 41.25}]})
    >>> root["layers"][0]["sqnr_db"].cell(".1f")
    Cell(text='41.2', path='/layers/0/sqnr_db', exact='41.25', missing=False, image='')
    >>> root["layers"][3]["sqnr_db"].cell(".1f").text
    'not measured'
    """

    def __init__(self, value: Any, path: str = "") -> None:
        self.value = value
        self.path = path

    def __getitem__(self, key: str | int) -> "Node":
        try:
            value = self.value[key]
        except (KeyError, IndexError, TypeError):
            value = None
        return Node(value, f"{self.path}/{str(key).replace('~', '~0').replace('/', '~1')}")

    def __iter__(self) -> Iterator["Node"]:
        """Yields the elements of a list; of anything else, nothing."""
        yield from (self[index] for index in range(len(self.value) if isinstance(self.value, list) else 0))

    def __bool__(self) -> bool:
        return self.value is not None

    @property
    def names(self) -> tuple[str, ...]:
        """The sorted names in an object; of anything else, none."""
        return tuple(sorted(self.value)) if isinstance(self.value, dict) else ()

    @property
    def number(self) -> float | None:
        """The value if it is a number."""
        is_number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        return float(self.value) if is_number else None

    @property
    def text(self) -> str:
        """The value if it is a text, else ""."""
        return self.value if isinstance(self.value, str) else ""

    def cell(self, form: str = "", missing: str = "not measured") -> Cell:
        """Returns it as a text.

        Args:
          form: Format of a number.
          missing: What is shown where there is none.
        """
        if self.value is None:
            return Cell(text=missing, missing=True)
        if isinstance(self.value, bool):
            return Cell(text="yes" if self.value else "no", path=self.path)
        if isinstance(self.value, int | float):
            return Cell(text=format(self.value, form), path=self.path, exact=json.dumps(self.value))
        if isinstance(self.value, str):
            return Cell(text=self.value or "none", path=self.path)
        if not self.value:
            return Cell(text="none", path=self.path)
        if isinstance(self.value, list) and all(isinstance(one, str) for one in self.value):
            return Cell(text=", ".join(self.value), path=self.path)
        return Cell(text=json.dumps(self.value, ensure_ascii=False), path=self.path)

    def picture(self, alt: str) -> Cell | None:
        """Returns the picture whose data URI this is; None if it is none."""
        return Cell(text=alt, path=self.path, image=self.text) if _PICTURE.fullmatch(self.text) else None
