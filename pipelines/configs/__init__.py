"""Runnable pipelines. One file per pipeline, holding `CONFIG`."""

from components.quantization import plugins
from pipelines.config import PipelineConfig


def config_names() -> tuple[str, ...]:
    """Returns the names of the configs that ship."""
    return plugins.member_names(__name__)


def load_config(name: str) -> PipelineConfig:
    """Returns the config of that name.

    Raises:
      ValueError: If there is none.
    """
    config: PipelineConfig = plugins.load_member(__name__, name, "config").CONFIG
    return config
