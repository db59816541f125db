"""What a conversion keeps of its examples: how a calibration sample stands for its split, and statistics of both."""

import collections
import dataclasses
import functools

from components import drift_statistics
from components.converter_inputs import ConverterInputs
from components.drift_statistics import CALIBRATION, EXAMPLES, INPUTS, Statistics
from components.evaluation.input_columns import InputColumns
from components.quantization.conversion.coverage import coverage, coverage_json


class DescribedInputs:
    """One look at the split, for whoever wants one of them."""

    def __init__(self, inputs: ConverterInputs, names: tuple[str, ...], calibrated: bool) -> None:
        """Takes what is needed; reads nothing.

        Args:
          inputs: What the converter is given.
          names: Names of the model's inputs.
          calibrated: Whether the conversion took ranges from its sample.
        """
        self._inputs, self._names, self._calibrated = inputs, names, calibrated

    @property
    def coverage(self) -> str:
        """How the sample stands for its split, as JSON; "" if nothing was calibrated."""
        return self._described[0] if self._calibrated else ""

    @property
    def statistics(self) -> dict[str, bytes]:
        """The files of components/drift_statistics.py; empty if StatisticsGen's are not connected."""
        raw = self._inputs.statistics
        return drift_statistics.to_files({EXAMPLES: raw, **self._described[1]}) if raw is not None else {}

    @functools.cached_property
    def _described(self) -> tuple[str, dict[str, Statistics]]:
        columns = InputColumns(self._names)
        split = columns.watch(self._inputs.split_batches())
        if not self._calibrated:
            collections.deque(split, maxlen=0)
            return "", {INPUTS: drift_statistics.of_columns(columns.columns)}
        batches, sample = self._inputs.representative_batches(), InputColumns(self._names)
        compared = coverage(batches, split, self._names)
        for batch in batches:
            sample.add(batch)
        found = {
            name: drift_statistics.of_columns(of.columns) for name, of in ((INPUTS, columns), (CALIBRATION, sample))
        }
        anomalies = drift_statistics.drift_anomalies(found[CALIBRATION], found[INPUTS])
        distances = [dataclasses.asdict(one) for one in drift_statistics.distances(anomalies)]
        return coverage_json({**compared, "distances": distances}, *self._inputs.sampled_by), found
