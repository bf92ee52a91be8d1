"""The small linear algebra of a fit, in Python floats: only + − × ÷ and square root, each rounded once by IEEE 754.

NumPy's linear algebra calls BLAS and LAPACK, whose results differ in the last bits between CPUs.
"""

from __future__ import annotations

from math import sqrt
from typing import Final

Vector = tuple[float, float, float]
Matrix3 = tuple[Vector, Vector, Vector]
StainMatrix = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
"""Rows red, green, blue; columns haematoxylin, eosin."""

_MAX_SWEEPS: Final = 50
_ARCTAN_TERMS: Final = 12
_HALVINGS: Final = 4
_DEGREES_PER_RADIAN: Final = 57.29577951308232


def dot(a: Vector, b: Vector) -> float:
    """Scalar product, added from left to right."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(a: Vector) -> Vector:
    """The vector at length 1.

    Raises:
        ZeroDivisionError: If its length is 0.
    """
    length = sqrt(dot(a, a))
    return (a[0] / length, a[1] / length, a[2] / length)


def combine(x: float, a: Vector, y: float, b: Vector) -> Vector:
    """x·a + y·b."""
    return (x * a[0] + y * b[0], x * a[1] + y * b[1], x * a[2] + y * b[2])


def eigen_symmetric(matrix: Matrix3) -> tuple[Vector, tuple[Vector, Vector, Vector]]:
    """Eigenvalues, largest first, and unit eigenvectors of a symmetric 3×3 matrix, by cyclic Jacobi rotations.

    Each eigenvector is signed to a positive sum of its components. Method: Golub and Van Loan, Matrix
    Computations, section 8.5.
    """
    a = [list(row) for row in matrix]
    vectors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    for _ in range(_MAX_SWEEPS):
        if a[0][1] == 0.0 and a[0][2] == 0.0 and a[1][2] == 0.0:
            break
        for p, q in ((0, 1), (0, 2), (1, 2)):
            _rotate(a, vectors, p, q)
    order = sorted(range(3), key=lambda i: -a[i][i])
    values = (a[order[0]][order[0]], a[order[1]][order[1]], a[order[2]][order[2]])
    first, second, third = (_signed((vectors[0][i], vectors[1][i], vectors[2][i])) for i in order)
    return values, (first, second, third)


def _rotate(a: list[list[float]], vectors: list[list[float]], p: int, q: int) -> None:
    off = a[p][q]
    scale = abs(a[p][p]) + abs(a[q][q])
    if scale + abs(off) == scale:
        a[p][q] = a[q][p] = 0.0
        return
    theta = (a[q][q] - a[p][p]) / (2.0 * off)
    tangent = (1.0 if theta >= 0.0 else -1.0) / (abs(theta) + sqrt(theta * theta + 1.0))
    cosine = 1.0 / sqrt(tangent * tangent + 1.0)
    sine = tangent * cosine
    r = 3 - p - q
    a[p][p] -= tangent * off
    a[q][q] += tangent * off
    a[p][q] = a[q][p] = 0.0
    arp, arq = a[r][p], a[r][q]
    a[r][p] = a[p][r] = cosine * arp - sine * arq
    a[r][q] = a[q][r] = sine * arp + cosine * arq
    for row in vectors:
        row[p], row[q] = cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]


def _signed(vector: Vector) -> Vector:
    total = vector[0] + vector[1] + vector[2]
    sign = -1.0 if total < 0.0 else 1.0
    # Adding 0.0 turns −0.0 into 0.0, so that equal vectors have equal bits.
    length = sqrt(dot(vector, vector))
    return (sign * vector[0] / length + 0.0, sign * vector[1] / length + 0.0, sign * vector[2] / length + 0.0)


def columns(stain: StainMatrix) -> tuple[Vector, Vector]:
    """The haematoxylin and the eosin vector of a stain matrix."""
    return (stain[0][0], stain[1][0], stain[2][0]), (stain[0][1], stain[1][1], stain[2][1])


def cosine_between(a: Vector, b: Vector) -> float:
    """Cosine of the angle between two vectors of any positive length."""
    return dot(unit(a), unit(b))


def angle_deg(a: Vector, b: Vector) -> float:
    """Angle between two vectors in degrees, 0–180, without the C library's trigonometry (it varies by platform)."""
    a, b = unit(a), unit(b)
    normal = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    sine, cosine = sqrt(dot(normal, normal)), dot(a, b)
    if sine == 0.0:
        return 0.0 if cosine >= 0.0 else 180.0
    # tan(θ/2), in the form that does not cancel; then halved further until the series of arctan is short.
    tangent = sine / (1.0 + cosine) if cosine >= 0.0 else (1.0 - cosine) / sine
    for _ in range(_HALVINGS):
        tangent = tangent / (1.0 + sqrt(1.0 + tangent * tangent))
    square = tangent * tangent
    series = 0.0
    for k in range(_ARCTAN_TERMS - 1, -1, -1):
        series = 1.0 / (2 * k + 1) - square * series
    return 2.0 * (1 << _HALVINGS) * tangent * series * _DEGREES_PER_RADIAN


def pseudo_inverse(stain: StainMatrix) -> tuple[Vector, Vector]:
    """The 2×3 Moore-Penrose inverse (SᵀS)⁻¹Sᵀ: its two rows give a pixel's concentrations from its OD.

    Raises:
        ZeroDivisionError: If the columns are parallel.
    """
    h, e = columns(stain)
    hh, he, ee = dot(h, h), dot(h, e), dot(e, e)
    determinant = hh * ee - he * he
    return (
        combine(ee / determinant, h, -he / determinant, e),
        combine(hh / determinant, e, -he / determinant, h),
    )


def correction_matrix(
    stain: StainMatrix,
    max_concentration: tuple[float, float],
    reference_stain: StainMatrix,
    reference_max_concentration: tuple[float, float],
) -> Matrix3:
    """The 3×3 matrix on optical densities that normalisation is: S_ref · diag(maxC_ref / maxC) · pinv(S).

    Raises:
        ZeroDivisionError: If the columns of `stain` are parallel or a `max_concentration` is 0.
    """
    inverse_h, inverse_e = pseudo_inverse(stain)
    ratio_h = reference_max_concentration[0] / max_concentration[0]
    ratio_e = reference_max_concentration[1] / max_concentration[1]
    red, green, blue = (combine(row[0] * ratio_h, inverse_h, row[1] * ratio_e, inverse_e) for row in reference_stain)
    return (red, green, blue)
