"""The primitives: pure functions of arrays, time on axis 1, one folder per op. No parameters, no modules, no config.

Each op's folder holds the public function (`__init__.py`, which states the equation), its definition (`reference.py`)
and the fast forms that are tested against it. `dispatch.py` chooses between them, `inputs.py` holds what all ops do to
their inputs first: dtype, document starts, ragged lengths.
"""
