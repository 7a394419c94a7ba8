"""Exports a trained language model as StableHLO programs that run without this code base; see inference/export.py.

./dev export runs/bytes --out exported [--batch 1] [--prompt 256] [--max_len 1024] [--platforms cpu,cuda,tpu]
"""

import argparse
import sys
from pathlib import Path

from arguments import Parser, at_least
from inference import export
from mistake import Mistake
from training.run import Run


def main(argv: list[str] | None = None) -> int:
  """Writes the folder. Exit code: 2 for wrong arguments."""
  form = argparse.RawDescriptionHelpFormatter
  parser = Parser(prog="export", description=__doc__, formatter_class=form)
  parser.add_argument("run", type=Path, help="folder of a run")
  parser.add_argument("--out", type=Path, required=True, help="folder of the programs")
  parser.add_argument("--step", type=int, help="of the checkpoint; the newest by default")
  parser.add_argument("--batch", type=at_least(1), default=1, help="sequences that go on together")
  parser.add_argument("--prompt", type=at_least(1), default=256, help="tokens that one call of prefill takes at most")
  parser.add_argument("--max_len", type=at_least(1), default=1024, help="tokens that a state which grows has room for")
  parser.add_argument("--platforms", default="cpu", help=f"some of {','.join(export.PLATFORMS)}")
  args = parser.parse_args(argv)
  try:
    opened = Run.open(args.run, step=args.step)
    sizes = dict(batch=args.batch, prompt=args.prompt, max_len=args.max_len)
    export.write(args.out, opened.model, opened.variables, **sizes, platforms=args.platforms.split(","))
  except (Mistake, OSError) as error:
    print(f"export: {error}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
