"""The sections of the page, in order: each a function from the documents to what it shows."""

from components.report.facts import Node
from components.report.layout import Section
from components.report.sections import (
    accuracy,
    contract,
    conversion,
    examples,
    flips,
    layers,
    origin,
    size,
    slices,
    target,
    targets,
    training,
    verdict,
)

_SECTIONS = (
    verdict.section,
    accuracy.section,
    size.section,
    flips.section,
    slices.section,
    training.curves,
    training.ladder,
    layers.signals,
    layers.histograms,
    conversion.calibration,
    examples.section,
    conversion.audit,
    target.section,
    contract.section,
    origin.lineage,
    origin.environment,
)


def sections(root: Node) -> tuple[Section, ...]:
    """Returns all sections, also those of which everything is missing: they say so; that on several targets first."""
    several = (targets.section(root),) if root["targets"] else ()
    return (*several, *(section(root) for section in _SECTIONS))
