"""The kernels' rules in plain torch, on any device: a second opinion on the CUDA sources, and the yardstick of their speed."""

from __future__ import annotations

from math import ceil
from typing import Any

from atomid_live.detect.refine import FARTHEST_SIGMA, MODEL_SIGMA, SANDWICH
from atomid_live.kernels.layout import FEWEST, STRONGEST, Column
from atomid_live.kernels.reference import BLUR_CELLS, CELL, LIMIT, REACH, axis_weights
from atomid_live.kernels.reference_fit import LEAST_PIXELS, first_half, growth, round_window

CHUNK_PIXELS = 1 << 23


def to_image(pixels: Any, offset: float = 0.0, top: float | None = None) -> Any:
    """Pixels (rows, cols) minus `offset` as float32; with `top`, turned over."""
    import torch

    image = (pixels.to(torch.float64) - offset).to(torch.float32)
    return image if top is None else top - image


def area_resample(image: Any, shape: tuple[int, int]) -> Any:
    """Area means of an image (rows, cols) on a coarser grid."""
    import torch

    down, across = (
        torch.from_numpy(axis_weights(n, m)).to(image.device, image.dtype) for n, m in zip(image.shape, shape, strict=True)
    )
    return down @ image @ across.T


def _reflected(length: int, device: Any) -> Any:
    """Places (length, 17) that a blur of a row of cells reads, edges repeated in reverse."""
    import torch

    period = torch.cat([torch.arange(length), torch.arange(length).flip(0)])
    places = torch.arange(length)[:, None] + torch.arange(-REACH, REACH + 1)
    return period[places % (2 * length)].to(device)


def _blur(cells: Any, axis: int) -> Any:
    import torch

    weights = torch.exp(-0.5 * (torch.arange(-REACH, REACH + 1, device=cells.device, dtype=cells.dtype) / BLUR_CELLS) ** 2)
    moved = cells.movedim(axis, -1)[..., _reflected(cells.shape[axis], cells.device)]
    return (moved @ (weights / weights.sum())).movedim(-1, axis)


def _interpolated(cells: Any, shape: tuple[int, int]) -> Any:
    import torch

    out = cells
    for axis in (0, 1):
        count = cells.shape[axis]
        place = ((torch.arange(shape[axis], device=cells.device, dtype=cells.dtype) + 0.5) / CELL - 0.5).clamp(0.0, count - 1.0)
        low = place.long().clamp(max=max(count - 2, 0))
        part = (place - low).reshape((-1, 1) if axis == 0 else (1, -1))
        out = out.index_select(axis, low) * (1 - part) + out.index_select(axis, (low + 1).clamp(max=count - 1)) * part
    return out


def local_contrast(image: Any) -> Any:
    """Local contrast of an image (rows, cols), float32, limited to +-6."""
    import torch

    rows, cols = image.shape
    pad = torch.nn.functional.pad(image[None, None].double(), (0, -cols % CELL, 0, -rows % CELL), mode="replicate")[0, 0]
    pad = pad - pad.mean()
    cells = pad.reshape(pad.shape[0] // CELL, CELL, pad.shape[1] // CELL, CELL)
    mean, power = (_blur(_blur(part.mean((1, 3)), 0), 1) for part in (cells, cells**2))
    variance = power - mean**2
    spread = torch.where(variance > 1e-12 * power, variance, 0.0).sqrt()
    least = 1e-6 * spread.max().clamp(min=1e-12)
    gain = torch.where(spread > least, 1.0 / spread.clamp(min=1e-300), 0.0)
    flat = pad[:rows, :cols] - _interpolated(mean, (rows, cols))
    return (flat * _interpolated(gain, (rows, cols))).clamp(-LIMIT, LIMIT).float()


def local_maxima(image: Any, floor_value: float) -> Any:
    """Peaks (N, 2), raster order, by the rule of `reference.local_maxima`."""
    import torch

    rows, cols = image.shape
    clean = torch.where(torch.isnan(image), -torch.inf, image)
    frame = torch.full((rows + 2, cols + 2), -torch.inf, device=image.device, dtype=image.dtype)
    frame[1:-1, 1:-1] = clean
    top = image > floor_value
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if dy or dx:
                other = frame[1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + cols]
                top &= ~((other >= clean) if (dy, dx) < (0, 0) else (other > clean))
    return top.nonzero()


def suppress(yx: Any, height: Any, radius_px: float, shape: tuple[int, int]) -> Any:
    """Which peaks (N, 2) in raster order stay; rounds of decisions end where the greedy `reference.suppress` does."""
    import torch

    count, device = len(yx), yx.device
    keep = torch.ones(count, dtype=torch.bool, device=device)
    if radius_px <= 1.0 or count == 0:
        return keep
    reach = ceil(radius_px)
    board = torch.full((shape[0] + 2 * reach, shape[1] + 2 * reach), count, dtype=torch.long, device=device)
    board[yx[:, 0] + reach, yx[:, 1] + reach] = torch.arange(count, device=device)
    steps = torch.cartesian_prod(*[torch.arange(-reach, reach + 1, device=device)] * 2)
    steps = steps[((steps**2).sum(1) < radius_px**2) & (steps != 0).any(1)]
    near = board[yx[:, None, 0] + reach + steps[:, 0], yx[:, None, 1] + reach + steps[:, 1]]
    mine, theirs = height[:, None], torch.cat([height, height.new_full((1,), -torch.inf)])[near]
    ahead = (near < count) & ((theirs > mine) | ((theirs == mine) & (near < torch.arange(count, device=device)[:, None])))
    state = torch.ones(count + 1, dtype=torch.int8, device=device)
    while bool((state[:count] == 1).any()):
        rivals = torch.where(ahead, state[near], 3)
        decided = torch.where((rivals == 2).any(1), 3, torch.where((rivals == 3).all(1), 2, 1)).to(torch.int8)
        state[:count] = torch.where(state[:count] == 1, decided, state[:count])
    return state[:count] == 2


def _gaussians(centre: Any, first: Any, side: int, sigma: float) -> tuple[Any, Any]:
    import torch

    u = (first[:, None] + torch.arange(side, device=centre.device) - centre[:, None]) / sigma
    return torch.exp(-0.5 * u * u), u


def _windows(image: Any, place: Any, half: int, sigma: float) -> tuple[Any, Any, Any, Any, Any]:
    """Squares around places (N, 2): what is on the frame, indices, Gaussian, and distances in widths along y and x."""
    import torch

    (rows, cols), side = image.shape, 2 * half + 1
    corner = torch.floor(place + 0.5).long() - half
    line = torch.arange(side, device=image.device)
    y, x = corner[:, :1] + line, corner[:, 1:] + line
    valid = ((y >= 0) & (y < rows))[:, :, None] & ((x >= 0) & (x < cols))[:, None, :]
    places = y.clamp(0, rows - 1)[:, :, None], x.clamp(0, cols - 1)[:, None, :]
    (gy, dy), (gx, dx) = (_gaussians(place[:, a], corner[:, a], side, sigma) for a in (0, 1))
    return valid, places, gy[:, :, None] * gx[:, None], dy[:, :, None].expand_as(valid), dx[:, None].expand_as(valid)


def _step(image: Any, peak: Any, begin: Any, patch: Any, weight: Any, shape: Any, sigma: float) -> tuple[Any, Any, Any, Any]:
    """One weighted linear step of each fit: table without errors, heights and moves, normal matrices, and who arrived."""
    import torch

    valid, g, u, t = shape
    count = len(begin)
    basis = torch.stack([g, torch.ones_like(g), g * u, g * t], -1).reshape(count, -1, 4)
    flat = weight.reshape(count, -1, 1)
    normal, eye = basis.mT @ (flat * basis), torch.eye(4, device=image.device, dtype=basis.dtype)
    enough = (flat[..., 0] > 0).sum(1) > LEAST_PIXELS
    factor, bad = torch.linalg.cholesky_ex(torch.where(enough[:, None, None], normal, eye))
    solved = enough & (bad == 0) & (factor.diagonal(dim1=1, dim2=2).amin(1) > 1e-6)
    right = basis.mT @ (flat[..., 0] * patch.reshape(count, -1))[..., None]
    value = torch.cholesky_solve(right, torch.where(solved[:, None, None], factor, eye))[..., 0]
    value = torch.where(solved[:, None], value, 0.0)
    ok = value[:, 0] > 0.0
    move = (sigma * value[:, 2:] / torch.where(ok, value[:, 0], 1.0)[:, None]).clamp(-0.5 * sigma, 0.5 * sigma)
    end = begin + move
    border = torch.tensor([image.shape[0] - 0.5, image.shape[1] - 0.5], device=image.device, dtype=begin.dtype)
    outside = ok & ((end < -0.5) | (end > border)).any(1)
    ok = ok & ~outside & (((end - peak) ** 2).sum(1) <= (FARTHEST_SIGMA * sigma) ** 2)
    table = begin.new_zeros(count, len(Column))
    table[:, :2] = torch.where(ok[:, None], end, peak)
    table[:, Column.AMPLITUDE], table[:, Column.BACKGROUND] = value[:, 0].clamp(min=0.0), value[:, 1]
    table[:, Column.OK], table[:, Column.EDGE] = ok.double() - outside.double(), (~valid).any((1, 2)).double()
    return table, value, normal, ok


def _fit_alone(image: Any, start: Any, sigma: float) -> Any:
    """First pass over columns whose windows fit into memory together."""
    import torch

    valid, places, g, u, t = _windows(image, start, first_half(sigma), sigma)
    patch = torch.where(valid, image[places].double(), 0.0)
    return _step(image, start, start, patch, valid.double(), (valid, g, u, t), sigma)[0]


def _fit_among(image: Any, model: Any, begin: Any, height: Any, peak: Any, width: tuple[float, float]) -> Any:
    """Second pass over columns whose windows fit into memory together."""
    import torch

    sigma, gain = width
    radius, half = round_window(sigma)
    valid, places, g, u, t = _windows(image, begin, half, sigma)
    light = model[places]
    patch = torch.where(valid, image[places].double() - light + height[:, None, None] * g, 0.0)
    inside = valid & (u**2 + t**2 <= (radius / sigma) ** 2)
    weight = torch.where(inside, 1.0 / (1.0 + gain * light.clamp(min=0.0)), 0.0)
    table, value, normal, ok = _step(image, peak, begin, patch, weight, (valid, g, u, t), sigma)
    left = torch.where(inside, patch - value[:, 1, None, None] - value[:, 0, None, None] * g, 0.0)
    pixels = inside.sum((1, 2)).double()
    free, mean = (pixels - 4).clamp(min=1.0), (weight * left**2).sum((1, 2)) / pixels.clamp(min=1.0)
    table[:, Column.NOISE] = ((left**2).sum((1, 2)) / free).sqrt()
    scale = sigma**2 / torch.where(ok, value[:, 0], 1.0) ** 2 * pixels / free
    for column, k, slope in ((Column.VAR_Y, 2, u), (Column.VAR_X, 3, t)):
        n, own = normal[:, k, k].clamp(min=1e-30), ((weight * left * g * slope) ** 2).sum((1, 2))
        table[:, column] = scale * (SANDWICH * own / n + (1 - SANDWICH) * mean) / n
    table[~ok, Column.NOISE : Column.VAR_X + 1] = 0.0
    return table


def _in_parts(work: Any, half: int, *columns: Any) -> Any:
    """Run `work` on as many columns at a time as memory is meant to hold."""
    import torch

    some = max(1, CHUNK_PIXELS // (2 * half + 1) ** 2)
    parts = [work(*chunk) for chunk in zip(*(column.split(some) for column in columns), strict=True)]
    return torch.cat(parts)


def _stamps(held: Any, half: int, sigma: float) -> tuple[Any, Any, Any]:
    corner = (held[:, :2] + 0.5).long() - half
    (gy, dy), (gx, dx) = (_gaussians(held[:, a], corner[:, a], 2 * half + 1, sigma) for a in (0, 1))
    return corner, gy[:, :, None] * gx[:, None, :], dy[:, :, None] ** 2 + dx[:, None, :] ** 2


def _render(shape: tuple[int, int], held: Any, sigma: float) -> Any:
    """Sum of all columns; on a GPU the order of this sum, and with it the last digits, may change between runs."""
    import torch

    half = ceil(MODEL_SIGMA * sigma)
    # a fitted column lies at most some widths outside the frame
    edge = 2 * half
    wide = held.new_zeros(shape[0] + 2 * edge, shape[1] + 2 * edge)
    for part in held[held[:, 2] > 0].split(max(1, CHUNK_PIXELS // (2 * half + 1) ** 2)):
        corner, stamp, _ = _stamps(part, half, sigma)
        line = torch.arange(2 * half + 1, device=held.device) + edge
        places = (corner[:, :1, None] + line[:, None], corner[:, 1:, None] + line[None, :])
        wide.index_put_(places, part[:, 2, None, None] * stamp, accumulate=True)
    return wide[edge : edge + shape[0], edge : edge + shape[1]]


def _wider(image: Any, model: Any, held: Any, sigma: float) -> tuple[float, float]:
    import torch

    radius, half = round_window(sigma)
    best = held[torch.sort(held[:, 2], descending=True, stable=True).indices[:STRONGEST]]
    corner = (best[:, :2] + 0.5).long() - half
    limit = torch.tensor(image.shape, device=image.device) - 2 * half
    best = best[(corner >= 0).all(1) & (corner < limit).all(1) & (best[:, 2] > 0)]
    corner, g, square = _stamps(best, half, sigma)
    line = torch.arange(2 * half + 1, device=image.device)
    places = (corner[:, :1, None] + line[:, None], corner[:, 1:, None] + line[None, :])
    use = (square * sigma**2 <= radius**2).double()
    left, light = image[places].double() - model[places], model[places]
    change, mean = (left[:, :, 1:] - left[:, :, :-1]) ** 2, 0.5 * (light[:, :, 1:] + light[:, :, :-1])
    near = use[:, :, :-1]
    noise = [float((near * part).sum()) for part in (torch.ones_like(mean), mean, mean**2, change, change * mean)]
    g, e = g * use, left * use
    q = g * square
    s1, sg, sgg, sq, sgq = (part.sum((1, 2)) for part in (use, g, g * g, q, g * q))
    d = s1 * sgg - sg * sg
    c_g, c_1 = (s1 * sgq - sg * sq) / d, (sgg * sq - sg * sgq) / d
    free = (q - c_g[:, None, None] * g - c_1[:, None, None]) * use
    lower = float((best[:, 2] ** 2 * (free * q).sum((1, 2))).sum())
    step = sigma * float((best[:, 2] * (free * e).sum((1, 2))).sum()) / lower if lower > 0.0 else 0.0
    wider = min(max(sigma + step, 0.9 * sigma), 1.1 * sigma)
    return wider if abs(wider / sigma - 1.0) >= 0.01 else sigma, growth(*noise)


def refine(image: Any, yx_px: Any, sigma_px: float, *, fit_width: bool = True) -> tuple[Any, float]:
    """Fit of columns as `reference.refine`; `image` float32 and `yx_px` float64 (N, 2) on one device."""
    import torch

    shape = (int(image.shape[0]), int(image.shape[1]))
    if not len(yx_px):
        return yx_px.new_zeros(0, len(Column)), sigma_px
    first = _in_parts(lambda start: _fit_alone(image, start, sigma_px), first_half(sigma_px), yx_px)
    fitted = first[:, Column.OK : Column.OK + 1] > 0
    held = torch.where(fitted, first[:, :3], 0.0)
    model, sigma, gain = _render(shape, held, sigma_px), sigma_px, 0.0
    if fit_width and int((held[:, 2] > 0).sum()) >= FEWEST:
        sigma, gain = _wider(image, model, held, sigma_px)
        held = torch.cat([held[:, :2], held[:, 2:] * (sigma_px / sigma) ** 2], 1)
        model = _render(shape, held, sigma)
    begin = torch.where(fitted, first[:, :2], yx_px)

    def among(start: Any, height: Any, peak: Any) -> Any:
        return _fit_among(image, model, start, height, peak, (sigma, gain))

    table = _in_parts(among, round_window(sigma)[1], begin, held[:, 2], yx_px)
    return table, sigma
