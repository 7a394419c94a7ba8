"""The primitives: pure functions of arrays, time on axis 1, one folder per op. No parameters, no modules, no config.

Each op's folder holds the public function (`__init__.py`, which states the equation), its definition (`reference.py`)
and the fast forms that are tested against it and take the same arguments, whose types stand in `reference.py` alone.
`op.py` is the ops' common entry: dtype, document starts, padding; `dispatch.py` chooses between the forms.
"""
