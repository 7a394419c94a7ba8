"""WikiText-103 as bytes, by Hyena of 12 layers and width 768 (Poli et al. 2023, arXiv:2302.10866).

Published word perplexities of the test part with GPT-2's tokens (tab. 4.3; quoted from memory): Transformer 18.6,
hybrid H3 18.5, Hyena 18.6; S4 20.95 with its own vocabulary of words (arXiv:2111.00396, tab. 8). Settings are those
of safari: 125 million parameters with their table, 86 with one of bytes, MLPs, rate 6e-4, decay 0.1, warm-up 1 %,
cosine to a tenth, half a million tokens an update, clip 1. Departs: bytes for tokens, four times as many a row. The
word perplexity is exp(ln 2 · bits per byte · bytes of the test file / 245,569 words). Cost: days on one GPU; not run
here.

`python -m data.prepare wikitext_103 --from DIR` counts the words of the published files.

  python main.py --config configs/wikitext103.py:dir=DIR --workdir runs/wikitext103
  python main.py --config configs/wikitext103.py:dir=DIR,mixer=mamba,depth=24 --workdir runs/wikitext103_mamba
"""

from ml_collections import ConfigDict

from configs import base, text

FILES = {"files": "wiki.train.tokens", "validation_files": "wiki.valid.tokens", "test_files": "wiki.test.tokens"}


def get_config(arg: str = "") -> ConfigDict:
  """`dir`, mixer and sizes by argument."""
  c = base.defaults()
  c.steps = 100_000
  c.data = ConfigDict(base.text_section(name="text_file", batch=128, length=4096, **text.SECTIONS["text_file"] | FILES))
  c.model.width = 768
  c.model.body.pattern, c.model.body.depth = "m-", 24
  hyena = {"name": "hyena", "max_len": 4096, "features": 33, "frequency": 14.0}
  c.model.body.letters = ConfigDict({"m": hyena, "-": {"name": "mlp", "expand": 4}})
  o = c.optimizer
  o.lr, o.weight_decay, o.warmup, o.final_lr = 6e-4, 0.1, 1000, 0.1
  c.eval.every = c.save.every = 1000
  c.generate.prompt = " = "
  return base.parse(c, arg)
