"""The exception for what a user got wrong, which every folder may raise."""


class Mistake(ValueError):
  """A setting, a file or an argument that cannot be right; the message names it, its value, the choices and the fix.

  `main.py` prints it in one line. Every other exception, a ValueError of Python or JAX among them, is a bug of this
  code base and keeps its traceback.
  """
