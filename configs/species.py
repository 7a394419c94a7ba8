"""Species of a piece of DNA: human, lemur, mouse, pig and hippopotamus, or great apes (Nguyen et al. 2023, sec. 4.4).

Published accuracies in per cent (arXiv:2306.15794, tab. 4.5; quoted from memory): HyenaDNA 61.1 at 1,024 bases, 93.4 at
32,768, 97.9 at 250,000, 99.5 at a million, fine-tuned from its weights of the human genome. Great apes at 2^20
(arXiv:2312.00752, fig. 5): Mamba 1.4 million parameters 71.7, 7 million 81.3, HyenaDNA 54.9. Batch 256; the rate is
6e-5 for fine-tuning, as the second command does from a run of configs/hg38.py, and 6e-4 here for training from scratch.
Departs: records held out by their names, not by a list of chromosomes. `dir` holds a folder of FASTA files for each of
`labels` species, which are published at hgdownload.soe.ucsc.edu and ncbi.nlm.nih.gov/datasets. `embed=strands` reads
both strands with one model, as Caduceus does (arXiv:2403.03234). Not yet measured.

  python main.py --config configs/species.py:dir=FOLDER --workdir runs/species
  python main.py --config configs/species.py:dir=FOLDER,init_from=runs/hg38,lr=6e-5 --workdir runs/species_tuned
  python main.py --config configs/species.py:embed=strands,dir=FOLDER,width=256 --workdir runs/species_both
"""

from ml_collections import ConfigDict

from configs import base, grammar

EMBEDS = ("tokens", "strands")


def get_config(arg: str = "") -> ConfigDict:
  """`embed`, `dir`, mixer and sizes by argument."""
  embed, arg = grammar.take(arg, "embed", EMBEDS)
  c = base.defaults()
  c.steps = 10_000
  section = {"name": "species", "batch": 256, "length": 1024, "seed": 0, "dir": "", "labels": 5}
  c.data = ConfigDict(section | {"validation": 0.1, "eval_rows": 1024})
  base.classify(c, pool="mean")
  c.model.width = 128
  letters = {"m": {"name": "hyena", "max_len": 1026, "features": 5, "frequency": 10.0}, "-": {"name": "mlp"}}
  body = {"pattern": "m-", "depth": 4, "letters": letters, "branch": {"norm": {"name": "layer"}}}
  c.model.body = ConfigDict({"name": "stack", **body})
  c.optimizer.lr, c.optimizer.weight_decay, c.optimizer.warmup = 6e-4, 0.1, 100
  if embed == "tokens":
    return base.parse(c, arg)
  c = base.parse(c, arg)
  with c.unlocked():
    c.model.embed = ConfigDict({"name": "strands", "bases": "letters"})
    c.model.body = ConfigDict({"name": "reverse_complement", "merge": "sum", "mixer": c.model.body.to_dict()})
  return c
