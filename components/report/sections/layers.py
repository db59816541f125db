"""What quantization does to the layers: signal to noise, use of the integers, histograms of the worst."""

from components.report import charts, derived
from components.report.facts import Node
from components.report.layout import Figure, Section, Table, row, table

_DRAWN = 40


def signals(root: Node) -> Section:
    """Returns the SQNR of every layer, the worst marked, and what each step did to the metrics."""
    found = root["attribution"]
    layers = [layer for layer in found["layers"] if layer["name"]]
    worst = {layer["name"] for layer in derived.worst_layers(found.value)}
    measured = [layer for layer in layers if layer["sqnr_db"]]
    missing = [] if layers else ["The layers were not compared: nobody asked for it, or the model has none to tell."]
    if unmatched := [name.text for name in found["unmatched"]]:
        missing.append(f"No tensor was found for {', '.join(unmatched)}.")
    figures = (_chart(measured, worst, found),) if measured else ()
    notes = []
    if found["first_diverging"].text:
        notes.append(f"The first layer that diverges is {found['first_diverging'].text}.")
    notes += [f"Found: {finding.text}." for finding in found["findings"]]
    tables = (_changes(found["changes"]),) if list(found["changes"]) else ()
    return Section(
        id="layers",
        title="Signal to quantization noise by layer",
        notes=tuple(notes),
        missing=tuple(missing),
        figures=figures,
        tables=tables,
    )


def histograms(root: Node) -> Section:
    """Returns how the worst layers use their integers: weights, and what comes out of them."""
    worst = [layer["name"] for layer in derived.worst_layers(root["attribution"].value)]
    figures = [
        _histogram(one, f"Weights of {one['name'].text}", int(one["low"].number or 0), int(one["high"].number or 0))
        for one in root["weights"]
    ]
    for layer in root["attribution"]["layers"]:
        if layer["name"].value in worst and list(layer["histogram"]):
            half = 1 << int((layer["bits"].number or 8) - 1)
            figures.append(_histogram(layer, f"Activations of {layer['name'].text}", -half, half - 1))
    missing = () if figures else ("There are no layers to tell the worst of.",)
    without = [name for name in worst if name not in {one["name"].value for one in root["weights"]}]
    if figures and without:
        missing = (f"No weights of their own: {', '.join(without)}.",)
    return Section(id="histograms", title="Integers of the worst layers", missing=missing, figures=tuple(figures))


def _chart(layers: list[Node], worst: set[str], found: Node) -> Figure:
    drawn = [
        charts.Bar(
            label=layer["name"].text,
            value=layer["sqnr_db"].number or 0.0,
            text=layer["sqnr_db"].cell(".1f").text,
            marked=layer["name"].value in worst,
        )
        for layer in (
            layers if len(layers) <= _DRAWN else sorted(layers, key=lambda one: one["sqnr_db"].value)[:_DRAWN]
        )
    ]
    rows = [
        row(
            layer["name"].cell(),
            layer["sqnr_db"].cell(".1f"),
            layer["max_lsb"].cell(".2f"),
            layer["quantization_sqnr_db"].cell(".1f"),
            layer["saturation"].cell(".1%", missing="floats"),
            layer["utilisation"].cell(".1%", missing="too few values"),
            mark="worst" if layer["name"].value in worst else "",
        )
        for layer in layers
    ]
    low = min(drawn, key=lambda one: one.value)
    compared = f"integer against {found['compared_with'].text}, {found['layer_kernels'].text}"
    head = ("layer", "SQNR, dB", "largest difference, LSB", "quantization alone, dB", "at ends", "integers used")
    return Figure(
        svg=charts.bars(drawn, "SQNR, dB"),
        alt=f"SQNR of {len(drawn)} layers in dB, {compared}; the lowest is {low.text} of {low.label}.",
        table=table(f"Layers, {compared}", head, rows),
    )


def _changes(changes: Node) -> Table:
    rows = [
        row(
            f"{one['start'].text} to {one['end'].text}",
            one["metric"].cell(),
            one["difference"].cell("+.4g"),
            one["standard_error"].cell(".2g", missing="not known"),
            one["cause"].cell(),
        )
        for one in changes
    ]
    head = ("step", "metric", "change", "standard error", "cause")
    return table("What each step did to the metrics, on the examples of the attribution", head, rows)


def _histogram(one: Node, what: str, low: int, high: int) -> Figure:
    counts = list(one["histogram"])
    width = (high - low + 1) // len(counts)
    rows = [
        row(f"{low + index * width} to {low + (index + 1) * width - 1}", count.cell(",d"))
        for index, count in enumerate(counts)
    ]
    used = one["utilisation"].cell(".1%", missing="an unknown share").text
    return Figure(
        svg=charts.histogram([count.number or 0.0 for count in counts], low, high),
        alt=f"{what}: histogram of integers from {low} to {high}, of which {used} occur.",
        table=table(f"{what}, values by integer", ("integers", "values"), rows),
    )
