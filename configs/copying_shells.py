"""Selective copying by block and state space: no gate, H3's or Mamba's block around S4, Hyena or S6.

Table 1 of Gu & Dao 2023 (arXiv:2312.00752), at length 256 and 8 data tokens in place of 4,096 and 16, 4,000 steps of 16
rows in place of 400,000 of 64. Published in per cent:

  block   S4    Hyena  S6
  none    18.3  –      97.0
  h3      57.0  30.1   99.7
  mamba   56.4  28.4   99.8

Two layers of width 64; `hybrids.shells.Shell` is the block, with the state space bare in it. H3's block around Hyena's
filter is the mixer `hyena`, and Mamba's around S6 is the mixer `mamba`. Departs: in Mamba's block around Hyena, the
inner Hyena has its own two gates. Guessing is right at 7 %.

Planned cost: 3 to 12 minutes a run on one core, 24 runs. The rates stand from the middle outwards.

  python main.py --config configs/copying_shells.py:block=h3,inner=s4 --workdir runs/h3_s4
  ./dev sweep --config configs/copying_shells.py --out runs/copying_shells --jobs 2
  ./dev report runs/copying_shells --by inner --across block
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import grammar, selective_copying

SMALL = "steps=4000,stages=((0,64),(1400,256)),cpu_devices=1,eval.every=1000,save.every=4000"
INNER: dict[str, dict[str, Any]] = {
  "s6": {"name": "s6"},
  "s4": {"name": "s4", "activation": "none"},
  "hyena": {"name": "hyena", "max_len": 256},
}
BLOCKS = ("mamba", "h3", "none")
# what is a mixer of its own
WHOLE = {("mamba", "s6"): {"name": "mamba"}, ("h3", "hyena"): INNER["hyena"]}


def get_config(arg: str = "") -> ConfigDict:
  """`block` and `inner`, and keys of configs/selective_copying.py."""
  block, arg = grammar.take(arg, "block", BLOCKS)
  inner, arg = grammar.take(arg, "inner", INNER)
  c = selective_copying.get_config(",".join(filter(None, [SMALL, arg])))
  shell = {"name": "hybrids.shells.Shell", "kind": block, "mixer": INNER[inner]}
  with c.unlocked():
    c.model.body.letters = ConfigDict({"m": WHOLE.get((block, inner), shell)})
  return c


def get_sweep() -> Iterator[dict[str, Any]]:
  """Yields every block with every state space that the table has, at each rate."""
  for lr in (2e-3, 1e-3, 4e-3):
    for inner in INNER:
      for block in BLOCKS:
        if (block, inner) != ("none", "hyena"):
          yield {"block": block, "inner": inner, "lr": lr}
