"""Single layers of other code bases as our mixers: S5's, S4's, and annotated S4's, from their trees of parameters.

  tree = read("checkpoint.msgpack")                        # or .npz with keys a/b/c; nothing is unpickled
  fields, params = s5(tree["params"]["encoder"]["layers_0"])
  y = build("s5", width=d, **fields).apply({"params": params}, x)

S4 is trained as C (I - Abar^l) for one length l. That is turned into C exactly, once, in double precision.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization

from interop.tensors import some
from mistake import Mistake
from ssm.lti import dplr

Tree = Mapping[str, Any]


def read(path: str | Path) -> dict[str, Any]:
  """Reads a tree of arrays: a .npz file, whose keys have slashes between names, or one of Flax's msgpack files.

  Raises:
    Mistake: it cannot be read, or holds objects that would have to be unpickled.
  """
  path = Path(path).expanduser()
  try:
    if path.suffix != ".npz":
      return serialization.msgpack_restore(path.read_bytes())
    tree: dict[str, Any] = {}
    with np.load(path, allow_pickle=False) as file:
      for name in file.files:
        *parts, last = name.split("/")
        here = tree
        for part in parts:
          here = here.setdefault(part, {})
        here[last] = file[name]
    return tree
  # msgpack raises errors of its own, all of them ValueErrors
  except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
    raise Mistake(f"{path} cannot be read: {error}; give Flax's msgpack or an .npz of plain arrays") from None


def s5(tree: Tree, *, activation: str = "none") -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns a layer of lindermanlab/S5: its state space `seq`, or a sequence layer with its gates, without its norm.

  Args:
    activation: theirs, needed where there are gates: "full_glu", "half_glu1", "half_glu2" or "gelu".

  Returns:
    The fields of our mixer s5 besides its width, and its parameters.

  Raises:
    Mistake: a parameter is missing, unknown or of another shape.
  """
  inner = dict(tree.get("seq", tree))
  gate = {"out2": "gate"}
  gates = {"full_glu": {"out1": "out_proj", **gate}, "half_glu1": gate, "half_glu2": gate}
  own = gates.get(activation, {})
  both = "C1" in inner
  needed = {"Lambda_re", "Lambda_im", "B", "D", "log_step", *(("C1", "C2") if both else ("C",))}
  check("a layer of S5", inner, needed)
  if "seq" in tree:
    check("a sequence layer of S5", {name: x for name, x in tree.items() if name not in ("seq", "norm")}, set(own))
  B = np.asarray(inner["B"])
  n, width, _ = B.shape
  C = np.concatenate([inner["C1"], inner["C2"]], axis=1) if both else np.asarray(inner["C"])
  if C.shape not in ((width, n, 2), (width, 2 * n, 2)):
    raise Mistake(f"a layer of S5 has C of shape {C.shape}; of B {B.shape} it must be {(width, n, 2)}")
  names = {"gelu": "gelu_tanh"}
  fields = dict(state=2 * n, bidirectional=C.shape[1] == 2 * n, activation=names.get(activation, activation))
  params = {
    "lam_re": inner["Lambda_re"],
    "lam_im": inner["Lambda_im"],
    "log_dt": np.asarray(inner["log_step"])[:, 0],
    "D": inner["D"],
    **{f"{name}_{part}": x[..., i] for name, x in (("B", B), ("C", C)) for i, part in enumerate(("re", "im"))},
    **{ours: {key: tree[theirs][key] for key in ("kernel", "bias")} for theirs, ours in own.items()},
  }
  return fields, arrays(params)


def annotated_s4(tree: Tree, *, l_max: int) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns a layer of srush/annotated-s4, whose N states are complex and in training leave their pairs.

  y = Re(C h) for h of A = diag(lam) - P P*; as real numbers that is a dense matrix of twice the size, [[Re A, -Im A],
  [Im A, Re A]], which our mixer lssl has. The gate of their blocks has GELU's tanh form and is not part of this.

  Args:
    l_max: the length of its kernel, for which C (I - Abar^l) is trained.

  Returns:
    The fields of our mixer lssl besides its width, and the parameters of its state space; `out_proj` is the caller's.

  Raises:
    Mistake: a parameter is missing or unknown.
  """
  check("a layer of annotated S4", tree, {"Lambda_re", "Lambda_im", "P", "B", "C", "D", "log_step"})
  # their vmap puts the channels on axis 1
  wide = lambda name: np.moveaxis(np.asarray(tree[name], np.complex128), 1, 0)
  lam = np.minimum(wide("Lambda_re").real, -1e-4) + 1j * wide("Lambda_im").real
  P, B, parts = wide("P"), wide("B"), wide("C")
  step, D = np.exp(wide("log_step").real[:, 0]), wide("D").real[:, 0]
  cut = parts[..., 0] + 1j * parts[..., 1]
  n = lam.shape[1]
  A = np.stack([np.diag(row) for row in lam]) - P[:, :, None] * P[:, None, :].conj()
  one = np.eye(n)
  half = step[:, None, None] / 2 * A
  powers = np.linalg.matrix_power(np.linalg.solve(one - half, one + half), l_max)
  # their kernel is Re(C* (I - Abar^l z^l) (I - Abar z)^-1 Bbar): the stored row is conjugated
  C = np.linalg.solve((one - powers).swapaxes(1, 2), cut.conj()[..., None])[..., 0]
  params = {
    "A": np.block([[A.real, -A.imag], [A.imag, A.real]]),
    "B": np.concatenate([B.real, B.imag], axis=1),
    "C": np.concatenate([C.real, -C.imag], axis=1),
    "D": D,
    "log_dt": np.log(step),
  }
  return dict(state=2 * n, copies=len(lam)), arrays(params)


def s4(tree: Tree, *, l_kernel: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns a kernel of state-spaces/s4 (DPLR, one head, rank 1), by its state dict's names after `kernel.`, and D.

  Args:
    l_kernel: the length that the file stores beside C; None or 0 where C is not cut.

  Returns:
    The fields of our mixer s4 besides its width, and the parameters of its state space.

  Raises:
    Mistake: a parameter is missing or unknown.
  """
  check("a kernel of S4", tree, {"A_real", "A_imag", "P", "B", "C", "inv_dt", "D"})
  parts = lambda name: np.asarray(tree[name], np.float64)[0] @ np.array([1, 1j])
  log_A, imag, log_dt = (np.asarray(tree[name], np.float64) for name in ("A_real", "A_imag", "inv_dt"))
  P, B, C = parts("P"), parts("B"), parts("C")
  if l_kernel:
    times = len(C) // len(P)
    each = lambda x: np.tile(x, (times, 1))
    C = dplr.uncut(C, l_kernel, np.exp(log_dt[:, 0]), each(-np.exp(log_A) - 1j * imag), each(P))
  params = {"A_log": log_A, "A_im": -imag, "log_dt": log_dt[:, 0], "D": np.asarray(tree["D"]).reshape(-1)}
  for name, x in (("P", P), ("B", B), ("C", C)):
    params |= {f"{name}_re": x.real, f"{name}_im": x.imag}
  return dict(state=2 * C.shape[1], copies=len(log_A)), arrays(params)


def check(what: str, tree: Tree, needed: set[str]) -> None:
  """Raises a Mistake where the names of a tree are not those needed."""
  if missing := needed - tree.keys():
    raise Mistake(f"{what} lacks {some(missing)}; it has {some(tree)}")
  if extra := tree.keys() - needed:
    raise Mistake(f"{what} has {some(extra)}, which are not known here")


def arrays(tree: Tree) -> dict[str, Any]:
  """Returns the tree with arrays of float32."""
  return {name: arrays(x) if isinstance(x, Mapping) else np.asarray(x, np.float32) for name, x in tree.items()}
