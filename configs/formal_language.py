"""Formal languages (Delétang et al. 2023, arXiv:2207.02098), by data/formal_language.py. Not yet measured.

Published there, trained on sizes up to 40 and asked for 41 … 500: RNNs solve the regular ones (even_pairs, parity,
cycle_navigation, modular_arithmetic), stack RNNs the deterministic context-free ones as well, Transformers few of
either. The protocol there is batch 128 and a million steps. Here sizes up to 100 are asked, unless `eval_sizes` says
otherwise, and the sweep has six of the 18 languages of data/languages.py: three regular, two context-free, majority.

  python main.py --config configs/formal_language.py:language=cycle_navigation,mixer=slstm --workdir runs/cycle
  python main.py --config 'configs/formal_language.py:eval_sizes=((1,40),(41,500)),mixer=slstm' --workdir runs/parity
  ./dev sweep --config configs/formal_language.py:steps=5000 --out runs/formal_language
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import base

LANGUAGES = ("parity", "cycle_navigation", "modular_arithmetic", "reverse_string", "stack_manipulation", "majority")
MIXERS = ("mamba", "slstm", "softmax")


def get_config(arg: str = "") -> ConfigDict:
  """`language`, `mixer` and sizes by argument."""
  c = base.defaults()
  c.steps = 5000
  c.data = ConfigDict(
    {
      "name": "formal_language",
      "batch": 128,
      "length": 0,
      "seed": 0,
      "vocab": 0,
      "eval_rows": 512,
      "language": "parity",
      "shortest": 1,
      "longest": 40,
      "eval_sizes": ((1, 40), (41, 100)),
    }
  )
  c.optimizer.lr = 1e-3
  c.eval.every = 500
  return base.parse(c, arg)


def get_sweep() -> Iterator[dict[str, Any]]:
  """Three kinds of mixers on six languages."""
  for language in LANGUAGES:
    for mixer in MIXERS:
      yield {"language": language, "mixer": mixer}
