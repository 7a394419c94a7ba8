"""Associative recall at three lengths and three widths: who needs a width that grows with the length (Zoology).

The question of Arora et al. 2023 (arXiv:2312.04927, fig. 2, on MQAR) at CPU size and with one question a row, which
attention learns in a small budget: attention solves every length with a small width, gated convolutions need a width
that grows with the length, Mamba is in between, Based and hybrids close the gap. Two layers without MLPs, 41 tokens, of
which 20 are keys, 3,000 steps of 64 rows. Attention, Hyena and Mamba have the rate that was their best at width 64 in
configs/recall_table.py, Based has Mamba's and the hybrid attention's. Guessing among the values is right at 5 %, the
most frequent value of the row at 15 to 21 %. With `steps=9000` attention of width 64 answers 20 pairs.

Planned cost: 1 to 4 minutes a run on one core, 45 runs.

  python main.py --config configs/recall_widths.py:model=hybrid,length=42,width=32 --workdir runs/recall_hybrid
  ./dev sweep --config configs/recall_widths.py --out runs/recall_widths --jobs 2
  ./dev report runs/recall_widths --by model --across length --against parameters --png widths.png
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import associative_recall, grammar

SMALL = "vocab=41,depth=2,batch=64,steps=3000,warmup=100,b2=0.999,cpu_devices=1,eval.every=3000,save.every=3000"
MODELS = {
  "attention": "mixer=softmax,m.heads=1,position=learned,lr=1e-3",
  "hyena": "mixer=hyena,m.max_len=128,lr=2e-3",
  "mamba": "mixer=mamba,lr=2e-3",
  "based": "pattern=cm,c=gated_conv,m=based,m.heads=1,m.key_size=8,lr=2e-3",
  "hybrid": "pattern=ma,m=mamba,a=softmax,a.heads=1,lr=1e-3",
}
# tokens of a row: 10, 20 and 40 pairs
LENGTHS, WIDTHS = (22, 42, 82), (16, 32, 64)


def get_config(arg: str = "") -> ConfigDict:
  """`model`: a row of the table; and keys of configs/associative_recall.py."""
  model, arg = grammar.take(arg, "model", MODELS)
  return associative_recall.get_config(",".join(filter(None, [SMALL, MODELS[model], arg])))


def get_sweep() -> Iterator[dict[str, Any]]:
  """Yields every model at each width, the short rows first."""
  for length in LENGTHS:
    for width in WIDTHS:
      for model in MODELS:
        # the table starts at width^(-1/2), see configs/mqar.py
        yield {"model": model, "length": length, "width": width, "embed_std": round(width**-0.5, 3)}
