"""Rotary positions as config.json describes them, in today's form (`rope_parameters`) and in older ones."""

from typing import Any

from interop.config import Config
from mistake import Mistake

# their arguments of rules -> ours
RENAMED = {
  "attention_factor": "amplitude",
  "beta_fast": "fast",
  "beta_slow": "slow",
  "high_freq_factor": "high",
  "low_freq_factor": "low",
  "short_factor": "divisors",
}


def rope(config: Config, size: int, *, theta: float = 1e4, share: float = 1.0) -> dict[str, Any]:
  """Returns the fields of an attention mixer: position, theta, rotary and scaling.

  Exact up to the length of training for the rules "dynamic" and "longrope", which transformers changes with the text.

  Args:
    size: of a head.
    theta, share: the family's defaults.

  Raises:
    Mistake: the rule is not known here, or has an argument that is not.
  """
  given = {**config.get("rope_scaling", {}), **config.get("rope_parameters", {})}
  theta = given.pop("rope_theta", config.get("rope_theta", theta))
  share = given.pop("partial_rotary_factor", config.get("partial_rotary_factor", share))
  older = given.pop("type", "default")
  rule = given.pop("rope_type", older)
  # of images and videos; the three positions of a token of text are the same
  rule = "default" if rule == "mrope" else rule
  for key in ("mrope_section", "mrope_interleaved"):
    given.pop(key, None)
  fields: dict[str, Any] = {"position": "rope", "theta": float(theta)}
  if rule == "proportional":
    return fields | {"scaling": {"rule": rule, "share": share, "factor": float(given.pop("factor", 1.0))}}
  # as transformers does: int() cuts
  fields["rotary"] = int(size * share) / size
  scaling = _scaling(config, str(rule), given)
  return fields | ({"scaling": scaling} if scaling else {})


def _scaling(config: Config, rule: str, given: dict[str, Any]) -> dict[str, Any] | None:
  longest = config.get("max_position_embeddings", 0)
  trained = given.pop("original_max_position_embeddings", None) or config.get("original_max_position_embeddings", 0)
  trained = trained or longest
  names: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor"),
    "longrope": ("factor", "short_factor", "long_factor", "attention_factor"),
  }
  if rule not in names:
    raise Mistake(f"{config.where}: rope_type={rule!r} is not known here, only {', '.join(names)} and proportional")
  known = {key: given.pop(key) for key in names[rule] if given.get(key) is not None}
  if rule == "yarn" and not (known.get("mscale") and known.get("mscale_all_dim")):
    # transformers reads both or neither
    known = {key: value for key, value in known.items() if not key.startswith("mscale")}
  if left := {key: value for key, value in given.items() if value is not None}:
    raise Mistake(f"{config.where}: the rotary positions of rule {rule!r} have keys that are not known here: {left}")
  if rule == "default":
    return None
  if rule == "dynamic":
    # transformers changes the base with the text, once it is longer than that
    return {"rule": rule, **known, "trained": trained, "length": trained}
  if rule == "longrope":
    # of the two lists that for texts no longer than those of training
    del known["long_factor"]
    known.setdefault("factor", longest / trained)
  elif rule == "linear":
    return {"rule": rule, **known}
  return {"rule": rule, "trained": trained} | {RENAMED.get(key, key): value for key, value in known.items()}
