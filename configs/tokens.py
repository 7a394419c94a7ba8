"""Language model on text as the tokens of any tokenizer; `./dev tokenize` makes the folder.

  ./dev tokenize --config 'configs/text.py:files=notes/*.txt' --tokenizer FOLDER --out tokens/notes
  ./dev run --config configs/tokens.py:dir=tokens/notes --workdir runs/notes

`blend=(('tokens/a',0.7),('tokens/b',0.3))` in place of `dir` draws seven of ten training rows from the first folder.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
  """`dir` is a folder of tokens; the vocabulary is its tokenizer's."""
  c = base.defaults()
  c.steps = 3000
  c.data = ConfigDict(base.text_section(name="tokens", vocab=0, dir="", blend=()))
  c.model.width = 128
  c.optimizer.lr = 2e-3
  c.generate.prompt = "The "
  c.generate.tokens = 64
  return base.parse(c, arg)
