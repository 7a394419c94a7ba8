"""Books as bytes: MambaByte on PG-19 (Wang et al. 2024, arXiv:2401.13660).

Published bits per byte of the test part: MambaByte of 353 million parameters 0.930, MegaByte of 1.3 billion, with
patches, 0.922 (quoted from memory, unverified). Width 1024, 53 layers, rows of 8,192 bytes, AdamW (0.9, 0.95), clip
0.1, cosine; the batch of 32 and the rate of 8e-4 could not be checked against the authors' files. `size=972m` has 48
layers of 1,792. Cost: a cluster's; not run here. `size=small` is for one GPU: six layers of width 256, rows of 2,048.

`python -m data.prepare pg19 --from DIR` counts the books of the published folders.

  python main.py --config configs/pg19.py:dir=DIR --workdir runs/pg19
  python main.py --config configs/pg19.py:size=small,dir=DIR,mixer=rwkv7 --workdir runs/pg19_small
"""

from ml_collections import ConfigDict

from configs import base, grammar, text

# width, depth, bytes of a row, rows
SIZES = {"353m": (1024, 53, 8192, 32), "972m": (1792, 48, 8192, 32), "small": (256, 6, 2048, 16)}
PARTS = {"files": "train", "validation_files": "validation", "test_files": "test"}


def get_config(arg: str = "") -> ConfigDict:
  """`size`, `dir`, mixer and what else there is by argument."""
  size, arg = grammar.take(arg, "size", SIZES)
  width, depth, length, batch = SIZES[size]
  c = base.defaults()
  c.steps = 80_000
  section = text.SECTIONS["text_file"] | PARTS
  c.data = ConfigDict(base.text_section(name="text_file", batch=batch, length=length, **section))
  c.model.width, c.model.body.depth, c.model.dtype = width, depth, "bfloat16"
  o = c.optimizer
  o.lr, o.weight_decay, o.clip, o.warmup = 8e-4, 0.0, 0.1, 500
  c.eval.every, c.eval.batches, c.save.every = 2000, 50, 1000
  c.generate.prompt = "It was "
  return base.parse(c, arg)
