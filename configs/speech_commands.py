"""Speech Commands as raw sound: 35 or 10 words, a second of 16,000 samples; trained at 16 kHz, asked at 8 kHz as well.

Published test accuracies in per cent, 35 words at 16 kHz, and at 8 kHz without training there: S4-LegS 96.08 / 91.32,
S4D-LegS 95.83 / 91.08, S4D-Lin 96.25 / 91.58, S5 96.52 / 94.53, Liquid-S4 96.78 / 90.00; WaveGAN-like convolutions
95.51 / 7.26 (Smith et al. 2023, arXiv:2208.04933, tab. 3; quoted from memory). Settings: `model=s5` is S5's
bin/run_experiments (width 96, 6 layers, state 128 in 16 blocks, 40 epochs of batch 16, rate 8e-3, but 2e-3 and no
decay for all of the state space, C and D too), `model=s4` and `model=s4d` the S4 repository's (configs/experiment/sc:
width 128, state 64, two copies, rate 0.01). Departs: S4 and S4D read both ways by two layers, not by two kernels of
one.

`python -m data.prepare speech_commands_35 --from DIR` makes the files from the published folders, and
speech_commands_35_8khz those at 8 kHz, which `khz8` must name: the evaluator of that name then reads them by the same
parameters with `step_rescale=2`, as do the authors' `rate` and `step_rescale`. speech_commands_10 are yes, no, up,
down, left, right, on, off, stop and go, for which no settings are published here: `steps` are 40 epochs of all 35
words. Not run here: an epoch is 1.4 billion samples.

  python main.py --config configs/speech_commands.py:files=DIR/speech_commands_35.npz --workdir runs/sc35
  python main.py --config configs/speech_commands.py:model=s4,files=DIR/speech_commands_35.npz --workdir runs/sc35_s4
  python main.py --config configs/speech_commands.py:labels=10,files=DIR/speech_commands_10.npz --workdir runs/sc10
"""

from typing import Any

from ml_collections import ConfigDict

from configs import arrays, base, grammar

TRAIN, BATCH, EPOCHS = 84843, 16, 40
S5: dict[str, Any] = {"name": "s5", "state": 128, "blocks": 16, "activation": "half_glu1", "bidirectional": True}
S5 |= {"C_init": "lecun_normal"}
# width, mixer, learning rate, that of slow parameters, decay, dropout
MODELS: dict[str, tuple[int, dict[str, Any], float, float, float, float]] = {
  "s5": (96, S5, 8e-3, 2e-3, 0.04, 0.1),
  **{
    name: (128, {"name": "bidirectional", "mixer": {"name": name, "state": 64, "copies": 2}}, 1e-2, 1e-3, 0.05, 0.0)
    for name in ("s4", "s4d")
  },
}


def get_config(arg: str = "") -> ConfigDict:
  """`model`, `files`, `khz8` (the file at 8 kHz) and sizes by argument."""
  model, arg = grammar.take(arg, "model", MODELS)
  given = dict(grammar.pairs(arg))
  coarse = grammar.unquoted(given.pop("khz8", ""))
  width, mixer, lr, slow, decay, dropout = MODELS[model]
  c = base.defaults()
  c.data = ConfigDict(arrays.DATA | {"batch": BATCH, "length": 16000, "offsets": "offsets", "split": "split"})
  c.data.labels, c.data.channels = 35, 1
  base.classify(c, pool="mean")
  c.model.head.counts, c.model.embed.name, c.model.width = "classes", "features", width
  c.model.body.depth, c.model.body.letters = 6, ConfigDict({"m": mixer})
  norm = {"name": "batch", "momentum": 0.95 if model == "s5" else 0.9}
  c.model.body.branch = ConfigDict({"norm": norm, "dropout": dropout})
  o = c.optimizer
  c.steps, o.warmup = EPOCHS * (TRAIN // BATCH), TRAIN // BATCH
  o.lr, o.slow_lr, o.weight_decay, o.clip, o.b2 = lr, slow / lr, decay, 0.0, 0.999
  # their opt_config noBCdecay
  o.groups = (("/(C_re|C_im|D)$", {"lr": slow / lr, "weight_decay": 0.0}),) if model == "s5" else ()
  c.eval.every = c.save.every = TRAIN // BATCH
  if coarse:
    steps: dict[str, Any] = {"step_rescale": 2.0}
    letter = {"mixer": steps} if "mixer" in mixer else steps
    khz8 = {"data": {"files": coarse, "length": 8000}, "model": {"body": {"letters": {"m": letter}}}}
    c.evaluators = ConfigDict({"khz8": {"name": "task", "every": 0, **khz8}})
  return base.parse(c, ",".join(f"{key}={text}" for key, text in given.items()))
