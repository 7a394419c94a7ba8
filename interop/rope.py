"""Rotary positions as config.json describes them, in today's form (`rope_parameters`) and in older ones."""

from typing import Any

from interop.config import Config
from mistake import Mistake


def rope(config: Config, size: int, *, theta: float = 1e4, share: float = 1.0) -> dict[str, Any]:
  """Returns the fields of an attention mixer: position, theta, rotary and scaling.

  Args:
    size: of a head.
    theta, share: the family's defaults.

  Raises:
    Mistake: the rule is not known here, or has an argument that is not.
  """
  given = {**config.get("rope_scaling", {}), **config.get("rope_parameters", {})}
  theta = given.pop("rope_theta", config.get("rope_theta", theta))
  share = given.pop("partial_rotary_factor", config.get("partial_rotary_factor", share))
  rule = given.pop("rope_type", given.pop("type", "default"))
  given.pop("type", None)
  # as transformers does: int() cuts
  turned = int(size * share)
  fields: dict[str, Any] = {"position": "rope", "theta": float(theta), "rotary": turned / size}
  scaling = _scaling(config, str(rule), given)
  return fields | ({"scaling": scaling} if scaling else {})


def _scaling(config: Config, rule: str, given: dict[str, Any]) -> dict[str, Any] | None:
  take = lambda key, default=None: given.pop(key, default)
  trained = take("original_max_position_embeddings") or config.get("max_position_embeddings", 0)
  scaling: dict[str, Any] | None = None
  if rule == "linear":
    scaling = {"rule": "linear", "factor": float(take("factor"))}
  elif rule == "yarn":
    scaling = {"rule": "yarn", "factor": float(take("factor")), "trained": trained}
    scaling |= {"fast": float(take("beta_fast", 32)), "slow": float(take("beta_slow", 1))}
  elif rule != "default":
    raise Mistake(f"{config.where}: rope_type={rule!r} is not known here, only 'default', 'linear' and 'yarn'")
  if left := {key: value for key, value in given.items() if value is not None}:
    raise Mistake(f"{config.where}: the rotary positions of rule {rule!r} have keys that are not known here: {left}")
  return scaling
