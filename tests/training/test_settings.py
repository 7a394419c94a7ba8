"""Settings of a wrong type, as a damaged config.json or a program may have them, are named in one line."""

import pytest

from configs import text
from mistake import Mistake
from training.run import Run


@pytest.mark.parametrize(
  "key, value, words",
  [
    ("steps", "ten", "steps='ten'; it must be a whole number"),
    ("steps", None, "steps=None"),
    ("steps", True, "steps=True"),
    ("log_every", None, "log_every=None"),
    ("seed", 1.5, "seed=1.5"),
    ("wandb", "yes", "wandb='yes'; it must be true or false"),
    ("kernels", 3, "kernels=3; it must be text"),
    ("save", "x", "save='x'; it is a section with the keys every, keep, best"),
    ("save.every", "x", "save.every='x'"),
    ("mesh.data", "x", "mesh.data='x'"),
    ("generate.top_k", 1.5, "generate.top_k=1.5"),
    ("optimizer", None, "optimizer=None; it is a section"),
    ("optimizer.lr", "x", "optimizer.lr='x'; it must be a number"),
    ("optimizer.lr", True, "optimizer.lr=True"),
    ("optimizer.name", 3, "optimizer.name=3; it must be text"),
    ("optimizer.groups", "x", "optimizer.groups='x'; it must be a sequence"),
    ("data", 3, "data=3; it is a section"),
    ("data.name", None, "data.name=None; it is the name of a task"),
    ("data.batch", "x", "data.batch='x'"),
    ("model", [1], r"model=\[1\]; it is a section"),
    ("model.width", "x", "width='x' must be of type int"),
    ("model.body", 3, "body, or a mixer, is 3; it must be a section"),
    ("model.body.letters", [], r"letters is \[\]; it must be a section"),
    ("model.body.letters.m", "mamba", "letter is 'mamba'; it must be a section"),
    ("model.head.name", 3, "no head 3; choose from"),
  ],
)
def test_a_wrong_type_is_named(key, value, words):
  config = text.get_config("files=README.md,mixer=softmax").to_dict()
  *parts, leaf = key.split(".")
  section = config
  for part in parts:
    section = section[part]
  section[leaf] = value
  with pytest.raises(Mistake, match=words) as error:
    Run.from_config(config)
  assert "\n" not in str(error.value)
