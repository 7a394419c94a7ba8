"""Your own sequences: .npz, .npy, .h5, .csv, .parquet, idx or a folder of .wav (data/arrays.py says how they are read).

  python main.py --config 'configs/arrays.py:files=sensors.npz' --workdir runs/sensors
  python main.py --config 'configs/arrays.py:files=table.csv,predict=number,targets=price' --workdir runs/table
  python main.py --config 'configs/arrays.py:files=load.csv,predict=next,targets=load,length=96' --workdir runs/load
  python main.py --config 'configs/arrays.py:files=load.csv,predict=next,targets=load,length=96,horizon=24,ahead=each'
  python main.py --config 'configs/arrays.py:dir=digits,pattern=(?P<label>.)_(?P<group>.+)_.+' --workdir runs/digits

The F1 score and, of two classes, the area under the ROC curve come with `labels` (`head.counts=classes`). `dt` of time
stamps goes to mixers that take one (s5, event_ssm) and to the pool "time".
"""

from ml_collections import ConfigDict

from configs import base, grammar

DATA = {
  "name": "arrays",
  "batch": 32,
  "length": 0,
  "seed": 0,
  "dir": "",
  "files": "",
  "predict": "label",
  "inputs": "x",
  "targets": "y",
  "offsets": "",
  "lengths": "",
  "times": "",
  "groups": "",
  "split": "",
  "sequence": "",
  "pattern": "",
  "unit": 1.0,
  "gap": 0.0,
  "layout": "steps",
  "tokens": 0,
  "channels": 0,
  "labels": 0,
  "longer": "refuse",
  "horizon": 1,
  "validation": 0.1,
  "test": 0.1,
  "normalise": True,
  "balanced": False,
  "ahead": "last",
  "from_last": False,
}


def get_config(arg: str = "") -> ConfigDict:
  """Takes names of files and arrays, mixer and sizes by argument."""
  predict, arg = grammar.take(arg, "predict", ("label", "number", "next"))
  c = base.defaults()
  c.steps = 2000
  table = any(key == "files" and text.rstrip("'\"").endswith((".csv", ".parquet")) for key, text in grammar.pairs(arg))
  # of a table, all columns that have no other name
  c.data = ConfigDict(DATA | {"predict": predict} | ({"inputs": ""} if table else {}))
  base.classify(c, pool="mean")
  if predict == "label":
    c.model.head.counts = "classes"
  else:
    c.model.head = ConfigDict({"name": "regression", "pool": "last"})
  tokens = dict(grammar.pairs(arg)).get("tokens", "0")
  c.model.embed.name = "features" if tokens == "0" else "tokens"
  c.optimizer.lr = 2e-3
  c.eval.every = 200
  c = base.parse(c, arg)
  # a column of an .npz has no name
  outputs = max(1, len(c.data.targets.split())) * (c.data.horizon if c.data.ahead == "each" else 1)
  if predict == "next" and outputs > 1 and "head.outputs" not in dict(grammar.pairs(arg)):
    with c.unlocked():
      c.model.head.outputs = outputs
  return c
