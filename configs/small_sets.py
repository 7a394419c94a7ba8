"""Ten small data sets, by a state space model and by a Transformer of as many parameters: half an hour of CPU a run.

`set` is a row of SETS and `model` is ssm or transformer. The state space model is S5 that reads both ways (of events,
Event-SSM; of the forecast, S5 that reads one way; of Pathfinder, six layers with batch norm), the other a Transformer
with rotary positions, full attention and GELU MLPs. Of one set both read the same rows in the same order for the same
steps. Published accuracies of the whole sets in per cent, S4 / S5 / Transformer (arXiv:2111.00396, 2208.04933):
sequential MNIST 99.6 / 99.7 / 98.9, ListOps 59.6 / 62.2 / 36.4 at up to 2,000 tokens, Pathfinder 94.2 / 95.3 / 71.4 at
contours of 14, IMDB 86.8 / 89.3 / 64.3 at 4,096 bytes, colour CIFAR-10 91.8 / 90.1 / 62.2. Promoters: correlation
coefficient 0.84 of E. coli, 0.86 of B. subtilis (Umarov & Solovyev 2017). Forecast of ETTh1's oil temperature for each
of the next 24 hours: MSE 0.061 by S4.

ETTh1 is the file of github.com/zhouhaoyi/ETDataset without what comes after its 20 months: `head -14401 ETTh1.csv`.

Planned cost: see the table in docs/results/small_sets.md.

  python main.py --config configs/small_sets.py:set=imdb,model=ssm,dir=FOLDER --workdir runs/imdb
  ./dev sweep --config configs/small_sets.py:dir=FOLDER --out runs/small_sets --only set=imdb,promoters_ecoli --jobs 2
  ./dev report runs/small_sets --by model --across set
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs import arrays, grammar, listops, named, pathfinder, smnist

S5 = "mixer=s5,m.state=64,m.bidirectional=true,width=64,depth=4,norm=layer,lr=4e-3,slow_lr=0.25,weight_decay=0.05"
TRANSFORMER = "mixer=softmax,m.heads=2,m.mask=full,m.position=rope,width=48,depth=6,mlp=2.8,norm=layer,lr=1e-3"
SMALL = "warmup=100,cpu_devices=1,eval.every=1000,save.every=1000"


class Set(NamedTuple):
  """A data set: its config file, what makes it small, and what its models have in place of the usual."""

  module: Any
  small: str
  ssm: str = ""
  transformer: str = ""


SETS = {
  "mnist": Set(smnist, "batch=32,steps=2000"),
  "listops": Set(listops, "length=256,shortest=20,longest=200,batch=32,steps=3000"),
  # as S5's authors have it; four layers with LayerNorm stayed at chance
  "pathfinder": Set(
    pathfinder,
    "contour=6,train_rows=16000,batch=32,steps=6000",
    "width=32,m.state=32,depth=6,norm=batch",
    "width=28,mlp=3.4",
  ),
  "imdb": Set(named, "dataset=imdb,length=1024,batch=16,steps=2000", transformer="mlp=3.1"),
  "cifar10": Set(named, "dataset=cifar10_subset,batch=16,steps=2000,dropout=0.1"),
  "digits": Set(named, "dataset=spoken_digits,length=4096,batch=16,steps=500"),
  "promoters_ecoli": Set(named, "dataset=promoters_ecoli,balanced=true,batch=32,steps=1000,dropout=0.1"),
  "promoters_bacillus": Set(named, "dataset=promoters_bacillus,balanced=true,batch=32,steps=600,dropout=0.1"),
  # a Transformer takes no times; its events stand in their order
  "nmnist": Set(
    named,
    "length=2048,batch=16,steps=1000",
    "dataset=nmnist_subset,mixer=event_ssm,m.state=64,pool=time",
    "dataset=nmnist_subset_untimed,width=56,mlp=2.9",
  ),
  "forecast": Set(
    arrays,
    "files=ETTh1.csv,predict=next,inputs=OT,targets=OT,length=168,horizon=24,ahead=each,from_last=true,validation=0.2,"
    "test=0.2,steps=400,dropout=0.2",
    "m.bidirectional=false,m.state=96",
    "m.mask=causal",
  ),
}
# a sweep's `dir` is of the others
GENERATED = ("listops", "pathfinder")
MODELS = ("ssm", "transformer")


def get_config(arg: str = "") -> ConfigDict:
  """`set`, `model`, `dir`, and keys of the set's own config file."""
  name, arg = grammar.take(arg, "set", SETS)
  model, arg = grammar.take(arg, "model", MODELS)
  chosen = SETS[name]
  if name in GENERATED:
    arg = ",".join(f"{key}={text}" for key, text in grammar.pairs(arg) if key != "dir")
  settings = (S5, chosen.ssm) if model == "ssm" else (TRANSFORMER, chosen.transformer)
  return chosen.module.get_config(",".join(filter(None, [chosen.small, SMALL, *settings, arg])))


def get_sweep() -> Iterator[dict[str, Any]]:
  """Yields both models on every set."""
  for name in SETS:
    for model in MODELS:
      yield {"set": name, "model": model}
