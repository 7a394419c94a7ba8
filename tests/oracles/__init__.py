"""Mixers written once more: NumPy, float64, plain loops, from the papers' equations. They share nothing with the code.

Every oracle is `run(p, x, *, reset, lengths, ...)`: p maps parameter paths ("out_proj/kernel") to arrays, x is `b t d`,
reset `b t`, lengths `b`; further arguments are the mixer's hyper-parameters that parameters do not show.
"""
