"""Compiled loops of the affine fits (numba, serial)."""

from __future__ import annotations

import numba
import numpy as np

COUNTED_WEIGHT = 0.05
LEAST_NEIGHBOURS = 4
WORST_CONDITION = 50.0


@numba.njit(nogil=True, cache=True)
def place_nodes(yx, straight, cell, site, use, low, shape, uy, ux):  # type: ignore[no-untyped-def]
    """Put the displacements of columns in use into the padded arrays.

    Returns each column's place in them, its displacement, and whether it has both.
    """
    n = len(site)
    at, own, todo = np.zeros(n, np.int64), np.empty((n, 2)), np.zeros(n, np.bool_)
    for i in range(n):
        own[i, 0], own[i, 1] = yx[i, 0] - straight[i, 0], yx[i, 1] - straight[i, 1]
        if site[i] >= 0 and np.isfinite(straight[i, 0]):
            todo[i] = True
            at[i] = (site[i] * shape[1] + cell[i, 0] - low[0]) * shape[2] + cell[i, 1] - low[1]
            if use[i]:
                uy[at[i]], ux[at[i]] = own[i, 0], own[i, 1]
    return at, own, todo


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def fit_columns(at, own, site, todo, uy, ux, run, offset, diff, weight, stray2, full, part, out):  # type: ignore[no-untyped-def]
    """Fit the columns of `todo`; `at` is their place in the padded displacement arrays, where 1e9 stands for no column.

    out[i] = (Gyy, Gyx, Gxy, Gxx, Cyy, Cyx, Cxx, residual square sum, freedom, neighbours, Yinv yy, yx, xx, no gap).
    """
    classes = full.shape[1]
    m = np.empty(12)
    counted = np.zeros((classes, classes), np.int64)
    for s in range(classes):
        for t in range(classes):
            counted[s, t] = (weight[run[s, t] : run[s, t + 1]] > COUNTED_WEIGHT).sum()
    for i in range(len(at)):
        out[i, :] = np.nan
        out[i, 9] = 0.0
        if not todo[i]:
            continue
        here, y0, x0 = at[i], own[i, 0], own[i, 1]
        yyy, yyx, yxx = 0.0, 0.0, 0.0
        gyy, gyx, gxy, gxx = 0.0, 0.0, 0.0, 0.0
        zyy, zyx, zxx = 0.0, 0.0, 0.0
        rest, freedom, near, whole = 0.0, 0.0, 0, 1.0
        if uy[at[i]] == y0:
            near = -1
        for s in range(classes):
            m[:] = full[site[i], s]
            near += counted[site[i], s]
            u1, u2, uyy, uyx, uxy, uxx, uu = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for k in range(run[site[i], s], run[site[i], s + 1]):
                j = np.uintp(here + offset[k])
                dy, dx = uy[j] - y0, ux[j] - x0
                square = dy * dy + dx * dx
                g, ry, rx = weight[k], diff[k, 0], diff[k, 1]
                if square <= stray2[k]:
                    a, b = g * dy, g * dx
                    u1 += a
                    u2 += b
                    uyy += a * ry
                    uyx += a * rx
                    uxy += b * ry
                    uxx += b * rx
                    uu += g * square
                else:
                    whole = 0.0
                    near -= g > COUNTED_WEIGHT
                    h = g * g
                    m[0] -= g
                    m[1] -= g * ry
                    m[2] -= g * rx
                    m[3] -= g * ry * ry
                    m[4] -= g * ry * rx
                    m[5] -= g * rx * rx
                    m[6] -= h
                    m[7] -= h * ry
                    m[8] -= h * rx
                    m[9] -= h * ry * ry
                    m[10] -= h * ry * rx
                    m[11] -= h * rx * rx
            if m[0] > 1e-6:
                p = part[s]
                my, mx = m[1] / m[0], m[2] / m[0]
                yyy += p * (m[3] - m[1] * my)
                yyx += p * (m[4] - m[1] * mx)
                yxx += p * (m[5] - m[2] * mx)
                gyy += p * (uyy - u1 * my)
                gyx += p * (uyx - u1 * mx)
                gxy += p * (uxy - u2 * my)
                gxx += p * (uxx - u2 * mx)
                rest += p * (uu - (u1 * u1 + u2 * u2) / m[0])
                zyy += p * (m[9] - 2 * my * m[7] + my * my * m[6])
                zyx += p * (m[10] - my * m[8] - mx * m[7] + my * mx * m[6])
                zxx += p * (m[11] - 2 * mx * m[8] + mx * mx * m[6])
                freedom += m[0] - m[6] / m[0]
        out[i, 9] = max(near, 0)
        det = yyy * yxx - yyx * yyx
        trace = yyy + yxx
        if near < LEAST_NEIGHBOURS or det <= 1e-9 * trace * trace:
            continue
        spread = np.sqrt(max(trace * trace / 4 - det, 0.0))
        if trace / 2 + spread > WORST_CONDITION * (trace / 2 - spread):
            continue
        iyy, iyx, ixx = yxx / det, -yyx / det, yyy / det
        fyy, fyx = gyy * iyy + gyx * iyx, gyy * iyx + gyx * ixx
        fxy, fxx = gxy * iyy + gxx * iyx, gxy * iyx + gxx * ixx
        ayy, ayx = iyy * zyy + iyx * zyx, iyy * zyx + iyx * zxx
        axy, axx = iyx * zyy + ixx * zyx, iyx * zyx + ixx * zxx
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = fyy, fyx, fxy, fxx
        out[i, 4] = ayy * iyy + ayx * iyx
        out[i, 5] = ayy * iyx + ayx * ixx
        out[i, 6] = axy * iyx + axx * ixx
        out[i, 7] = max(0.0, rest - (fyy * gyy + fyx * gyx + fxy * gxy + fxx * gxx))
        out[i, 8] = freedom - ayy - axx
        out[i, 10], out[i, 11], out[i, 12] = iyy, iyx, ixx
        out[i, 13] = whole


@numba.njit(nogil=True, cache=True)
def fill_between(cell, todo, first_class, low, every, out):  # type: ignore[no-untyped-def]
    """Give the columns between fitted nodes of the first class the bilinear mean of those around them."""
    ni, nj = first_class.shape
    for i in range(len(cell)):
        if not todo[i] or not np.isnan(out[i, 0]):
            continue
        i0, j0 = cell[i, 0] // every * every, cell[i, 1] // every * every
        fi, fj = (cell[i, 0] - i0) / every, (cell[i, 1] - j0) / every
        total = 0.0
        held = np.zeros(10)
        for di in range(2):
            for dj in range(2):
                p, q = i0 + di * every - low[0], j0 + dj * every - low[1]
                w = (fi if di else 1 - fi) * (fj if dj else 1 - fj)
                if w > 0 and 0 <= p < ni and 0 <= q < nj:
                    k = first_class[p, q]
                    if k >= 0 and out[k, 8] == out[k, 8]:
                        total += w
                        held += w * out[k, :10]
        if total > 0:
            out[i, :7] = held[:7] / total
            out[i, 9] = held[9] / total
