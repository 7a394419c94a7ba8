"""Falcon Mamba (Zuo et al. 2024) as transformers saves it: Mamba with norms of dt, B and C that have no weights."""

from typing import Any

from interop.config import Config
from interop.families import mamba
from interop.families.mamba import IGNORED, LETTERS, SKIPPED, rows

__all__ = ["IGNORED", "LETTERS", "SKIPPED", "rows", "sections"]


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  section = mamba.sections(config, norms="weightless")
  section["body"]["letters"]["m"]["norm_eps"] = config.get("mixer_rms_eps", 1e-6)
  return section
