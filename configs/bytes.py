"""Byte-level language model on the Python standard library's own source: the first thing to run, on any machine.

A Mamba of two layers on two CPU devices: 1.565 bits per byte of the validation files after 300 s on two cores (Python
3.11.7, one seed; docs/results/text_bytes.md), read in rows of 8192 through which the state is carried. The unigram
entropy of that text is 4.66.

  python main.py --config configs/bytes.py --workdir runs/bytes
  python main.py --config configs/bytes.py:mixer=s5,mlp=4,depth=4,cpu_devices=0 --workdir runs/bytes_s5
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
  """Sizes by argument: width, depth, batch, length, lr, steps …"""
  c = base.defaults()
  c.steps = 5600
  c.data = ConfigDict(base.text_section(name="bytes", eval_length=8192))
  c.model.width = 96
  c.optimizer.lr = 5e-3
  c.mesh.cpu_devices = 2
  c.eval.chunk, c.eval.every = 512, 1400
  c.generate.prompt, c.generate.tokens, c.generate.temperature = 'class Reader:\n    """', 300, 0.6
  return base.parse(c, arg)
