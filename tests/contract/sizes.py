"""A small instance of every mixer for the contract suite."""

from typing import Any

from tests import mixers

# LayerNorm after each sum
POST = dict(norm=dict(name="layer"), norm_position="post")
# Arguments beside the width for a small instance of every mixer, by its name. What follows the name tells rows apart: a
# mixer has a second one where arguments change its kind of state or what it reads.
SMALL: dict[str, dict[str, Any]] = {
  "gated_mlp": {},
  "local": dict(heads=2, window=5),
  "mlp": dict(expand=2),
  "titans": dict(heads=2, inner=3, chunk=4),
  "titans, delta rule": dict(heads=2, layers=1, chunk=1, momentum=False),
  "titans, linear": dict(layers=1, chunk=5, decay=False),
  "titans_mac": dict(heads=2, persistent=2, segment=4, memory=dict(inner=3, chunk=3)),
  "titans_mac, linear": dict(heads=2, persistent=0, segment=3, position="none", memory=dict(layers=1, chunk=3)),
  "titans_mag": dict(heads=2, persistent=2, window=4, memory=dict(inner=3, chunk=3)),
  "titans_mal": dict(heads=2, persistent=2, window=4, memory=dict(layers=1, chunk=3)),
  # wrappers and stacks are mixers too; the hybrid has a remainder after its repeated groups
  "bidirectional": dict(mixer=dict(name="mamba", state=4, dt_rank=2)),
  "stack": dict(depth=3, pattern="m", letters={"m": dict(name="mamba", state=4)}, branch=POST),
  "stack, hybrid": dict(
    depth=7,
    pattern="sa-",
    letters={"s": dict(name="s5", state=4), "a": dict(name="softmax", heads=2), "-": dict(name="mlp", expand=2)},
    branch=dict(dropout=0.5),
    remat="full",
  ),
  "image_scan": dict(mixer=dict(name="mamba", state=4, dt_rank=2), orders=("column", "snake_reversed"), merge="mean"),
  "shell": dict(mixer=dict(name="s5", state=4)),
  "shell, h3": dict(mixer=dict(name="s5", state=4), kind="h3", taps=3),
  "shell, no gate": dict(mixer=dict(name="softmax", heads=2), kind="none"),
}
# Where those are that have no mixer file.
PATHS = {"shell": "hybrids.shells.Shell", "stack": "hybrids.body.stack.Stack"}
# The tables of each mixer's own file.
SMALL |= mixers.table("SMALL")
SIDE = mixers.table("SIDE")
PATHS |= {name: file.PATH for name, file in mixers.files().items() if hasattr(file, "PATH")}
