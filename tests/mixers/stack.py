"""Stack: small sizes, parameter count. It is a mixer too; tests/hybrids/ has the tests of its layers and patterns."""

from tests import mixers

PATH = "hybrids.body.stack.Stack"
# LayerNorm after each sum
POST = dict(norm=dict(name="layer"), norm_position="post")
SMALL = {
  "": dict(depth=3, pattern="m", letters={"m": dict(name="mamba", state=4)}, branch=POST),
  "batch norm": dict(depth=2, pattern="-", letters={"-": dict(name="mlp")}, branch=dict(norm=dict(name="batch"))),
  # with a remainder after its repeated groups
  "hybrid": dict(
    depth=7,
    pattern="sa-",
    letters={"s": dict(name="s5", state=4), "a": dict(name="softmax", heads=2), "-": dict(name="mlp", expand=2)},
    branch=dict(dropout=0.5),
    remat="full",
  ),
}
ORACLE = {}
REFUSED = []


def count(d, depth, pattern, letters, branch, **_):
  """A norm (RMSNorm has one vector, others two) and a mixer for each letter; a last norm if those stand before."""
  norm = 2 * d if "norm" in branch else d
  last = norm if branch.get("norm_position", "pre") == "pre" else 0
  return sum(mixers.count(width=d, **letters[pattern[i % len(pattern)]]) + norm for i in range(depth)) + last
