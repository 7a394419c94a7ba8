"""The primitives: pure functions of arrays, time on axis 1, one folder per op. No parameters, no modules, no config.

Each op's folder holds the public function (`__init__.py`, which states the equation and the shapes), its definition
(`reference.py`) and the fast forms, which are tested against it and take the same arguments. `op.py` is the common
entry: dtype, document starts, padding; `dispatch.py` chooses between the forms. All ops over time have these arguments:

  S, h, x, m or taps: the state before the first token; the one after each row's last token is returned beside outputs.
  reset: True where a document starts: nothing before that token reaches it, and the state is cleared.
  lengths: tokens of each right-padded row; in the padding outputs are 0 and the state stands still.
  impl: "auto", or a name in the op's IMPLS; a Mistake says that there is none, or why it cannot run the arguments.

They compute in at least float32 (complex64). Outputs have the dtype of the tokens x, u or v, the returned state that of
the computation. All ops are differentiable in all floating arrays unless they say otherwise.
"""
