"""The page on a model as an artifact of its own, which the pages of Vertex AI and Kubeflow Pipelines show.

{page}   the page itself, not a directory

Both show artifacts of type system.HTML, and read them at the artifact's URI. TFX's container entry point makes none: it
takes the title of a type that is not one of TFX's for the path of a Python class. So the container of this task runs
this module instead. For services; on this machine `python -m pipelines report` shows the page.
"""

import os
import sys
from collections.abc import Sequence

from tfx import types
from tfx.dsl.component.experimental.container_component import create_container_component
from tfx.dsl.component.experimental.placeholders import InputUriPlaceholder, OutputUriPlaceholder
from tfx.dsl.components.base import base_component
from tfx.dsl.io import fileio
from tfx.types import artifact, standard_artifacts

from components.delivery.manifest import REPORT_FILE

# As the type is written in a pipeline's specification:
# https://github.com/kubeflow/pipelines/blob/sdk-2.5.0/sdk/python/kfp/dsl/types/artifact_types.py
HTML_SCHEMA = {"schemaTitle": "system.HTML", "schemaVersion": "0.0.1"}
BLESSING_URI, PAGE_URI = "{{$.inputs.artifacts['blessing'].uri}}", "{{$.outputs.artifacts['page'].uri}}"
"""Placeholders of the command, which a service resolves."""
_NO_PAGE = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>No report</title></head><body><main>'
    "<p>There is no report of this model; the log of QuantizedEvaluator says why.</p></main></body></html>\n"
)


class Html(artifact.Artifact):
    """A page, a file at the artifact's URI."""

    TYPE_NAME = HTML_SCHEMA["schemaTitle"]


def report_page(blessing: types.BaseChannel, image: str) -> base_component.BaseComponent:
    """Returns the task.

    Args:
      blessing: The evaluator's.
      image: The image of the container, in which this package is installed.
    """
    component = create_container_component(
        name="ReportPage",
        inputs={"blessing": standard_artifacts.ModelBlessing},
        outputs={"page": Html},
        image=image,
        command=["python", "-m", __name__, InputUriPlaceholder("blessing"), OutputUriPlaceholder("page")],
    )
    return component(blessing=blessing)


def main(arguments: Sequence[str]) -> None:
    """Writes the page to where a service wants it; one that says so if none was made.

    Args:
      arguments: URI of the evaluator's blessing, and that of the page.
    """
    blessing_uri, page_uri = arguments
    source = os.path.join(blessing_uri, REPORT_FILE)
    if fileio.exists(source):
        fileio.copy(source, page_uri, overwrite=True)
        return
    with fileio.open(page_uri, "w") as file:
        file.write(_NO_PAGE)


if __name__ == "__main__":
    main(sys.argv[1:])
