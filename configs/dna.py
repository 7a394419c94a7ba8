"""Next-base prediction on a genome of yours (HyenaDNA, Nguyen et al. 2023, arXiv:2306.15794). Not yet measured.

Uniform, independent bases have 2 bits each. HyenaDNA's and Mamba's numbers are of the human genome. Longer rows:
`length=8192,batch=1`; a state carried from row to row: `stateful=true`.

  python main.py --config configs/dna.py:files=GENOME.fna.gz,mixer=hyena --workdir runs/dna
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
  """`files` or `dir`, mixer and sizes by argument."""
  c = base.defaults()
  c.steps = 3000
  c.data = ConfigDict(base.text_section(name="fasta", length=1024, dir="", files="", validation=0.05))
  c.data.strands, c.data.stages = "one", ()
  c.model.width, c.model.body.depth = 96, 4
  c.optimizer.lr, c.optimizer.weight_decay = 2e-3, 0.1
  c.generate.prompt, c.generate.tokens = "ATG", 256
  return base.parse(c, arg)
