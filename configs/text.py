"""Byte-level language model on text of your own, or on tiny Shakespeare.

  python main.py --config 'configs/text.py:files=notes/*.txt' --workdir runs/notes
  python main.py --config configs/text.py:dir=corpus,stateful=true --workdir runs/corpus
  python main.py --config configs/text.py:task=tiny_shakespeare --workdir runs/shakespeare

`files` is a file, a glob or a folder of plain text (a file is a document) or JSON lines (the key 'text' of a line is
one, or `key=content` another). A twentieth of it is held out, unless there are `validation_files`; `test_files` are
evaluated as well. `--mode eval --config.data.files=OTHER` evaluates all of OTHER.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base, grammar

SECTIONS: dict[str, dict[str, Any]] = {
  "text_file": {"dir": "", "files": "", "validation_files": "", "test_files": "", "key": "text", "validation": 0.05},
  "tiny_shakespeare": {"dir": "", "cache": ""},
}


def get_config(arg: str = "") -> ConfigDict:
  """`task` chooses between text_file and tiny_shakespeare."""
  task, arg = grammar.take(arg, "task", SECTIONS)
  c = base.defaults()
  c.steps = 3000
  c.data = ConfigDict(base.text_section(name=task, **SECTIONS[task]))
  c.model.width = 96
  c.optimizer.lr = 4e-3
  c.generate.prompt = "The "
  return base.parse(c, arg)
