"""Image generation by pixels: the next of 256 values of MNIST, or of CIFAR-10's colours one after another.

S4 is published at 2.85 bits per dimension on CIFAR-10 (Gu et al. 2022, arXiv:2111.00396, tab. 6), beside PixelCNN++
2.92 and Image Transformer 2.90, with more than 60 million parameters; this config is a small one: four S4 layers of
width 128, each with an MLP. `evaluators` writes 16 images at every evaluation. Not yet measured; on two CPU cores a
step takes seconds.

  python main.py --config configs/pixels.py:dir=FOLDER --workdir runs/pixels
  python main.py --config configs/pixels.py:dataset=cifar10,dir=FOLDER,length=3072 --workdir runs/cifar
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
  """`dataset`, `dir`, mixer and sizes by argument."""
  c = base.defaults()
  c.steps = 20_000
  c.data = ConfigDict(
    base.text_section(name="pixels", batch=32, length=784, dataset="mnist", held_out=6000, dir="", cache="")
  )
  c.model.width = 128
  c.model.body.depth, c.model.body.pattern = 8, "m-"
  c.model.body.letters = ConfigDict({"m": {"name": "s4", "state": 64}, "-": {"name": "mlp", "expand": 2}})
  c.optimizer.lr, c.optimizer.slow_lr, c.optimizer.weight_decay = 2e-3, 0.5, 0.01
  c.eval.every, c.eval.batches, c.save.every, c.generate.tokens = 1000, 20, 1000, 0
  c.evaluators = ConfigDict({"samples": {"name": "samples", "every": 1000, "rows": 16}})
  return base.parse(c, arg)
