"""MQAR's newer forms (Zoology, 2025): forgetting, compositional and continuous. Not yet measured.

Forgetting asks for the last of a key's values, compositional for that of a key of two tokens, continuous for the number
of a vector (data/mqar_forms.py, data/continuous_mqar.py).

  python main.py --config configs/mqar_forms.py:mixer=gated_delta_net --workdir runs/forgetting
  python main.py --config configs/mqar_forms.py:form=compositional,mixer=delta_net --workdir runs/two_keys
  python main.py --config configs/mqar_forms.py:form=continuous,passes=2,mixer=based --workdir runs/vectors
  ./dev sweep --config configs/mqar_forms.py --out runs/mqar_forms
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import base, grammar

TOKENS = {
  "name": "mqar_forms",
  "batch": 64,
  "length": 64,
  "seed": 0,
  "vocab": 256,
  "eval_rows": 1024,
  "pairs": 4,
  "updates": 2,
  "power": 0.01,
  "random_non_queries": False,
}
FORMS: dict[str, dict[str, Any]] = {
  "forgetting": TOKENS | {"form": "forgetting"},
  "compositional": TOKENS | {"form": "compositional"},
  "continuous": {
    "name": "continuous_mqar",
    "batch": 64,
    "seed": 0,
    "eval_rows": 1024,
    "values": 128,
    "size": 32,
    "pairs": 16,
    "passes": 1,
  },
}
MIXERS: tuple[dict[str, Any], ...] = (
  {"mixer": "softmax", "position": "learned"},
  {"mixer": "mamba"},
  {"mixer": "gated_delta_net"},
  {"mixer": "delta_net"},
  {"mixer": "based"},
)


def get_config(arg: str = "") -> ConfigDict:
  """`form` chooses among the three; mixer and sizes by argument."""
  form, arg = grammar.take(arg, "form", FORMS)
  c = base.defaults()
  c.steps = 5000
  c.data = ConfigDict(FORMS[form])
  if form == "continuous":
    c.model.embed.name, c.model.head.tie = "features", False
  else:
    c.model.embed.std = 0.125
  c.optimizer.lr, c.optimizer.b2 = 2e-3, 0.999
  return base.parse(c, arg)


def get_sweep() -> Iterator[dict[str, Any]]:
  """Five mixers on each form, at three learning rates."""
  for form in FORMS:
    for mixer in MIXERS:
      for lr in (1e-3, 2e-3, 4e-3):
        yield {"form": form} | mixer | {"lr": lr}
