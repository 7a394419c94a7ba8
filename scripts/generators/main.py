"""Statistics of each generated task beside what its definition says, as tables in Markdown.

  ./dev generators [--only ListOps MQAR …] [--rows 2000] [--seed 0]

χ² is Pearson's test of independent draws against the law of the definition: its p is uniform on 0 … 1 where they agree.
Pathfinder has fewer images than `--rows`, the larger they are: IMAGES in scripts/generators/classify.py, in proportion.
"""

import argparse
import sys
from collections.abc import Callable, Iterator

from arguments import Parser, at_least
from mistake import Mistake, hint
from scripts.generators import classify, recall, text
from scripts.generators.table import Table, markdown

# rows of each task, and of the word problems, whose products are worked out one by one
ROWS, MOST_PRODUCTS = 2000, 500


def tables(rows: int, seed: int) -> dict[str, Callable[[], Iterator[Table]]]:
  """Returns by name what makes the tables of a task."""

  def one(make: Callable[..., Table], *arguments: object) -> Iterator[Table]:
    yield make(*arguments, rows, seed)

  return {
    "ListOps": lambda: one(classify.expressions),
    "Pathfinder": lambda: (classify.curves(side, rows / ROWS, seed) for side in classify.IMAGES),
    "MQAR": lambda: (recall.mqar(*size, rows, seed) for size in ((64, 4), (256, 16), (512, 64))),
    "Copying": lambda: one(recall.copying, "copying"),
    "Selective copying": lambda: one(recall.copying, "selective_copying"),
    "Adding": lambda: one(recall.adding),
    "Associative recall": lambda: one(recall.associative_recall),
    "Induction heads": lambda: one(recall.induction_heads),
    "MAD": lambda: iter(recall.mad(rows, seed)),
    "RegBench": lambda: one(text.automata),
    "Word problems": lambda: (text.words(group, min(rows, MOST_PRODUCTS), seed) for group in ("S3", "A5", "S5", "Z60")),
    "State tracking": lambda: iter(text.tracking(rows, seed)),
    "Formal languages": lambda: one(text.formal),
    "Phone book": lambda: one(text.phone),
    "Needle": lambda: one(text.needles),
    "RULER": lambda: one(text.rulers),
  }


def main(argv: list[str] | None = None) -> int:
  """Prints the tables. Exit code: 0, or 2 for wrong arguments."""
  parser = Parser(prog="generators", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"all, or of {', '.join(tables(ROWS, 0))}")
  parser.add_argument("--rows", type=at_least(200), default=ROWS, help="rows of each task, 200 or more")
  parser.add_argument("--seed", type=at_least(0), default=0, help="of the rows")
  args = parser.parse_args(argv)
  known = tables(args.rows, args.seed)
  try:
    for name in args.only:
      if name not in known:
        raise Mistake(f"--only {name!r}{hint(name, known)}; choose from {list(known)}")
  except Mistake as error:
    print(f"generators: {error}", file=sys.stderr)
    return 2
  for name in args.only or known:
    for table in known[name]():
      print(markdown(table), end="\n\n", flush=True)
  return 0


if __name__ == "__main__":
  sys.exit(main())
