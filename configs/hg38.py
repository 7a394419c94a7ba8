"""The human genome, next base: HyenaDNA's pretraining (Nguyen et al. 2023, arXiv:2306.15794, app. A).

Published perplexities of the test part: 3.25 at 1,024 bases falling to 2.9 at a million (fig. 1.2, read off); Mamba's
fall with length to a million, HyenaDNA's rise from 2^14 on (arXiv:2312.00752, fig. 5). A uniform base has 4. `size` is
tiny (width 128, 2 layers, rows of 1,024) or small, medium, large (256; 4, 8, 8 layers; 32,768, 160,000, 1,000,000).
Rate 6e-4, decay 0.1, clip 1, cosine to a tenth, warm-up 1 %, half of the reverse complements (here: both strands).
`warm=true` grows rows from 1,024 by doubling, tokens a step being constant, as their warm-up of the sequence length.
Departs: whole chromosomes for the marked regions; no special tokens; letters for their numbers. `python -m data.prepare
hg38 --from DIR` counts the bases of each chromosome. Cost: a day on one A100 for the small model; not run here.

  python main.py --config configs/hg38.py:dir=DIR --workdir runs/hg38
  python main.py --config configs/hg38.py:size=small,warm=true,dir=DIR --workdir runs/hg38_small
  python main.py --config configs/hg38.py:size=tiny,dir=DIR,mixer=mamba --workdir runs/hg38_mamba
"""

from ml_collections import ConfigDict

from configs import base, grammar

# width, layers, bases of a row, rows
SIZES = {
  "tiny": (128, 2, 1024, 256),
  "small": (256, 4, 32768, 8),
  "medium": (256, 8, 160000, 8),
  "large": (256, 8, 1000000, 8),
}
STEPS = 20_000


def stages(length: int) -> tuple[tuple[int, int], ...]:
  """Lengths from 1,024 on, doubling at equal intervals of the first half of the training."""
  lengths = [1024 * 2**k for k in range(length.bit_length()) if 1024 * 2**k < length] + [length]
  return tuple((i * STEPS // (2 * len(lengths)), each) for i, each in enumerate(lengths))


def get_config(arg: str = "") -> ConfigDict:
  """`size`, `warm`, `dir`, mixer and what else there is by argument."""
  size, arg = grammar.take(arg, "size", SIZES)
  warm, arg = grammar.take(arg, "warm", ("false", "true"))
  width, depth, length, batch = SIZES[size]
  c = base.defaults()
  c.steps = STEPS
  section = base.text_section(name="fasta", batch=batch, length=length, dir="", files="", validation=0.02)
  c.data = ConfigDict(section | {"strands": "both", "stages": stages(length) if warm == "true" else ()})
  c.model.width = width
  c.model.body.pattern, c.model.body.depth = "m-", 2 * depth
  hyena = {"name": "hyena", "max_len": length + 2, "features": 5, "frequency": 10.0}
  c.model.body.letters = ConfigDict({"m": hyena, "-": {"name": "mlp", "expand": 4}})
  c.model.body.branch = ConfigDict({"norm": {"name": "layer"}})
  o = c.optimizer
  o.lr, o.weight_decay, o.warmup, o.final_lr = 6e-4, 0.1, STEPS // 100, 0.1
  c.eval.every, c.eval.batches, c.save.every = 1000, 50, 1000
  c.generate.prompt, c.generate.tokens = "ATG", 256
  return base.parse(c, arg)
