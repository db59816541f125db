"""The pages in Chromium: accessible by axe-core, without errors, readable without scripts, in light, dark and print."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.report.facts import Facts
from components.report.history import render_history
from components.report.page import render
from pipelines.lineage.attempts import attempts_of, history_document
from pipelines.lineage.graph import Graph
from pipelines.lineage.page import page_of
from pipelines.metadata import MetadataStore

from replayed_store import Store, changed, compiler_of
from report_documents import documents, hostile

pytestmark = pytest.mark.slow
_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_START_MS = 120_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if _CHROMIUM is None:
        pytest.skip("no Chromium here: install Debian's package chromium")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=_CHROMIUM, args=["--no-sandbox", "--disable-gpu"], timeout=_START_MS
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages on runs, of a history, and on the lineage of a model of a window of spans; one run was refused."""
    directory = tmp_path_factory.mktemp("pages")
    reports = {"usual": documents(), "hostile": hostile(documents()), "empty": {}}
    found = {name: render(Facts(documents=facts)) for name, facts in reports.items()}
    store = Store(directory / "store")
    first = store.run("run-1", edit=_made_of_a_window)
    refused = changed("QuantizedEvaluator-cpu", "ModelBlessing", blessed=0, reasons='["accuracy is 0.5, below 0.9"]')
    store.run("run-2", before=first, edit=refused)
    attempts = attempts_of(Graph(MetadataStore(str(store.path))), "devices")
    found["history"] = render_history(history_document("devices", attempts))
    found["no history"] = render_history(history_document("devices", []))
    found["lineage"] = page_of(store.lineage(store.artifact(first, compiler_of("cpu"), "Model").id))
    for name, page in found.items():
        (directory / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: directory / f"{name}.html" for name in found}


def _made_of_a_window(node: str, artifact: mlmd.Artifact) -> None:
    """Lets a run have been made of several spans, whose fingerprints are as long as ExampleGen's are."""
    spans = [8, 10, 11, 13]
    sums = "num_files:1,total_bytes:27900,xor_checksum:1795979942,sum_checksum:1795979942"
    fingerprints = [f"split:{span},{sums}" for span in spans]
    window = {"spans": json.dumps(spans), "span_fingerprints": json.dumps(fingerprints)}
    changed("ImportExampleGen", "Examples", **window)(node, artifact)
    if artifact.type == "Model":
        changed(node, "Model", **{f"examples_{name}": value for name, value in window.items()})(node, artifact)


def _opened(browser: Any, path: Path, **options: Any) -> tuple[Any, list[str]]:
    """A page, and what it complained of or asked for besides itself."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(_START_MS)
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("dialog", lambda dialog: heard.append(dialog.message))
    page.on("request", lambda request: heard.append(request.url) if request.url != path.as_uri() else None)
    page.goto(path.as_uri())
    return page, [one for one in heard if not one.startswith("data:")]


@pytest.mark.extended
@pytest.mark.parametrize("name", ["usual", "hostile", "empty", "history", "no history", "lineage"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_accessible_and_silent(browser: Any, pages: dict[str, Path], name: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page, heard = _opened(browser, pages[name], color_scheme=scheme, bypass_csp=True)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    results = axe.Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    assert heard == []
    page.context.close()


@pytest.mark.parametrize("name", ["usual", "hostile", "history", "lineage"])
@pytest.mark.parametrize("width", [360, 1200])
def test_page_is_no_wider_than_its_window(browser: Any, pages: dict[str, Path], name: str, width: int) -> None:
    page, heard = _opened(browser, pages[name], viewport={"width": width, "height": 800})
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert heard == []
    assert page.locator("h1").is_visible()
    # Boxes do not count what flows over them; this does.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if (name, width) == ("lineage", 1200):  # no fingerprint need be scrolled to
        scrolled = "[...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth).length"
        assert page.evaluate(scrolled) == 0
    page.context.close()


def test_page_shows_pictures_of_examples_that_flipped(browser: Any, pages: dict[str, Path]) -> None:
    page, _ = _opened(browser, pages["usual"])
    pictures = page.locator("#flips img.picture")
    assert pictures.count() == 2
    assert pictures.first.evaluate("one => [one.complete, one.naturalWidth]") == [True, 1]
    page.context.close()


def test_page_is_readable_without_scripts_and_fits_a_narrow_window(browser: Any, pages: dict[str, Path]) -> None:
    page, heard = _opened(browser, pages["usual"], java_script_enabled=False, viewport={"width": 360, "height": 800})
    assert heard == []
    assert page.locator("h1").inner_text() == "digits on edge_tpu"
    assert page.locator("#accuracy table").first.is_visible()
    assert page.locator("main").bounding_box()["width"] <= 360
    # Charts shrink with the window instead of widening it.
    assert all(svg.bounding_box()["width"] <= 360 for svg in page.locator("figure svg").all())
    page.context.close()


def test_page_shows_all_numbers_when_printed(browser: Any, pages: dict[str, Path]) -> None:
    page, _ = _opened(browser, pages["usual"], color_scheme="dark")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    assert page.evaluate(background) == "rgb(22, 24, 26)"
    numbers = page.locator("#size figure details td").first
    assert not numbers.is_visible()
    page.emulate_media(media="print")
    assert numbers.is_visible()
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.context.close()
