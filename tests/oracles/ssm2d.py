"""2-D SSM, arXiv:2306.06635: the recurrence over rows and columns from each corner, documents being images.

With `inside`, the published code's variant, there is no recurrence but for one impulse at a time: each pixel's response
is run by itself, as an image that begins with it.
"""

import numpy as np

from tests.oracles.parts import sigmoid

CORNERS = {1: [(1, 1)], 2: [(1, 1), (-1, -1)], 4: [(1, 1), (-1, 1), (1, -1), (-1, -1)]}


def scan(system, image, inside):
  """The double loop over an image of one channel; `inside` scales what arrives off the first row and column."""
  A, B, C = system
  rows, columns = image.shape
  h = np.zeros((rows + 1, columns + 1, A.shape[1]), complex)
  v = np.zeros_like(h)
  y = np.zeros(image.shape)
  for i in range(rows):
    for j in range(columns):
      weight = inside if i and j else 1.0
      # index -1 is the border of zeros
      h[i, j] = weight * (A[0] * h[i, j - 1] + A[1] * v[i, j - 1]) + B[0] * image[i, j]
      v[i, j] = weight * (A[2] * h[i - 1, j] + A[3] * v[i - 1, j]) + B[1] * image[i, j]
      y[i, j] = np.sum(C[0] * h[i, j] + C[1] * v[i, j]).real / np.sqrt(A.shape[1])
  return y


def read(system, image, inside):
  if inside == 1:
    return scan(system, image, 1)
  y = np.zeros(image.shape)
  for i, j in np.ndindex(image.shape):
    impulse = np.zeros((image.shape[0] - i, image.shape[1] - j))
    impulse[0, 0] = image[i, j]
    y[i:, j:] += scan(system, impulse, inside)
  return y


def systems(p):
  A, B, C = sigmoid(p["A_size"]), sigmoid(p["B"]), p["C"]
  if "A_angle" in p:
    A = A * np.exp(2j * np.pi * sigmoid(p["A_angle"]))
    B, C = (z[..., 0] + 1j * z[..., 1] for z in (B, C))
  return A, B, C


def run(p, x, *, columns, inside=0.5):
  A, B, C = systems(p)
  y = np.zeros_like(x)
  place = np.arange(len(x))
  for channel in range(x.shape[1]):
    image = np.zeros((-(-len(place) // columns), columns))
    image[place // columns, place % columns] = x[:, channel]
    out = p["D"][channel] * image
    for way, (down, right) in enumerate(CORNERS[A.shape[1]]):
      system = [z[:, way, channel % A.shape[2]] for z in (A, B, C)]
      out = out + read(system, image[::down, ::right], inside)[::down, ::right]
    y[:, channel] = out[place // columns, place % columns]
  return y
