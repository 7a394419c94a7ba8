"""Word problems of groups, trained at 128 elements and asked at 512 (data/word_problem.py). Not yet measured.

python main.py --config configs/word_problem.py:group=A5,mixer=rwkv7 --workdir runs/a5_rwkv7
./dev sweep --config "configs/word_problem.py:group=S3,length=32,eval_sizes=((32,32),(128,128))" --out runs/s3
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
  """Sizes by argument."""
  c = base.defaults()
  c.steps = 2000
  c.data = ConfigDict(
    {
      "name": "word_problem",
      "batch": 64,
      "length": 128,
      "seed": 0,
      "vocab": 0,
      "eval_rows": 512,
      "shortest": 2,
      "score": "all",
      "eval_sizes": ((128, 128), (512, 512)),
      "group": "S5",
    }
  )
  c.optimizer.lr = 1e-3
  c.eval.every = 500
  return base.parse(c, arg)
