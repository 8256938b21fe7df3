"""The judge of candidates on the device: features of each peak, its probability, and the choice, as `detect.judge` makes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log1p, pi, sqrt
from typing import Any

from atomid_live.detect.candidate_features import MOST_SIGNIFICANT, TYPICAL_QUANTILE
from atomid_live.detect.judge import (
    ATOM_Z,
    CLEAN,
    CLEAR,
    FEATURES,
    HOLE,
    LEAST_P,
    MAIN,
    MOST_P,
    STRAY_PART,
    STRAY_SHARE,
    STRAY_Z,
    TOP,
    Judge,
)
from atomid_live.detect.look import STANDS_OUT
from atomid_live.kernels.buffers import Buffers
from atomid_live.kernels.launch import Launcher
from atomid_live.kernels.layout import Column, Fit, Param, State

# Sums of probabilities are made of whole numbers, since those of floats would depend on how a GPU splits them.
FIXED_POINT = float(1 << 45)


@dataclass(frozen=True, slots=True, eq=False)
class DeviceJudge:
    """A judge's numbers on a device; see `detect.judge.Judge`."""

    mean: Any = field(repr=False)
    scale: Any = field(repr=False)
    layers: tuple[tuple[Any, Any], ...] = field(repr=False)

    @classmethod
    def on(cls, judge: Judge, device: Any) -> DeviceJudge:
        """Copy a judge to a device."""
        import torch

        def to(array: Any) -> Any:
            return torch.from_numpy(array.copy()).to(device)

        layers = tuple((to(w), to(b)) for w, b in zip(judge.weights, judge.biases, strict=True))
        return cls(to(judge.mean), to(judge.scale), layers)

    def probability(self, features: Any) -> Any:
        """Probability of each row of `features`, float64."""
        x = (features - self.mean) / self.scale
        for number, (weight, bias) in enumerate(self.layers):
            x = x @ weight + bias
            if number < len(self.layers) - 1:
                x = x.clamp(min=0.0)
        return x[:, 0].double().sigmoid()


def quantile(values: Any, which: Any, part: float) -> Any:
    """Quantile of some values, on the straight line between the two nearest ranks; 0 when there are none."""
    import torch

    rising = torch.sort(torch.where(which, values, torch.inf)).values
    last = (which.sum() - 1).clamp(min=0)
    place = part * last.double()
    low = place.floor().long()
    a, b = rising[low.reshape(1)], rising[torch.minimum(low + 1, last).reshape(1)]
    return torch.where(which.any(), a + (b - a) * (place - low), 0.0)[0]


def best_threshold(probability: Any, there: Any) -> Any:
    """Threshold of greatest expected F1, as `detect.judge.best_threshold`."""
    import torch

    p = torch.sort(torch.where(there, probability, 0.0), descending=True).values
    found = torch.cumsum((p * FIXED_POINT).round().long(), 0).double() / FIXED_POINT
    number = torch.arange(1, len(p) + 1, device=p.device)
    gain = 2.0 * found / (number + found[-1])
    best = p[torch.argmax(gain).reshape(1)][0].clamp(LEAST_P, MOST_P)
    return torch.where(there.any(), best, MOST_P)


def place(run: Launcher, b: Buffers, heat: Any) -> None:
    """Peaks of the map become candidates: starts of the fit, and how sharp they are."""
    run("place_candidates", b.room, heat, b.where, b.height, b.start, b.sharpness, b.param, b.state, b.room)


def choose(run: Launcher, b: Buffers, heat: Any, judge: DeviceJudge, kind: str) -> None:
    """Mark the fitted candidates that are columns; `State.MERIT` tells how high peaks typically are.

    Parameters
    ----------
    run, b, heat : Launcher, Buffers, Tensor
        After `place` and `stages.refine`.
    judge : DeviceJudge
    kind : str
        "lattice"; "noisy", a lattice whose vectors are among the parameters; or "sparse".
    """
    import torch

    seen = features(run, b, heat, kind)
    there = torch.arange(b.room, device=heat.device) < b.state[State.COUNT]
    if kind == "sparse":
        b.state[State.MERIT] = quantile(b.height.double(), there & (b.significance >= STANDS_OUT), 0.5)
    else:
        b.state[State.MERIT] = quantile(b.height.double(), there, 0.75)
    probability = judge.probability(seen)
    asked = b.param[Param.THRESHOLD]
    likely = there & (probability >= best_threshold(probability, there))
    by_itself = likely & ~_strays(seen, likely)
    b.chosen.copy_(torch.where(torch.isnan(asked), by_itself, there & (probability >= asked)))
    b.start_score.copy_(probability)


def _strays(seen: Any, likely: Any) -> Any:
    """Faint peaks with few of their like or in a hole, and lone ones on speckle, as `detect.judge.chosen` has them."""
    names = ("own_amplitude", "own_d_prime", "background", "lattice", "noise_fraction", "significance")
    own, z, level, lattice, noise, clear = (seen[:, FEATURES.index(name)] for name in names)
    faint = (own < STRAY_PART) & (lattice > 0.5)
    share = (likely & faint).sum().double() / (likely & ~faint).sum().clamp(min=1)
    odd = ((noise < CLEAN) & (share < STRAY_SHARE)) | ((noise < CLEAR) & (level < HOLE))
    return (faint & odd & (z.double() < log1p(STRAY_Z))) | ((lattice < 0.5) & (clear.double() < log1p(ATOM_Z)))


def features(run: Launcher, b: Buffers, heat: Any, kind: str) -> Any:
    """What the judge sees of each candidate, (room, features) float32, in the order of `detect.judge.FEATURES`."""
    import torch

    z, support = (torch.empty(b.room, dtype=torch.float64, device=heat.device) for _ in range(2))
    fit = torch.empty((b.room, len(Fit)), dtype=torch.float64, device=heat.device)
    run("fit_candidates", b.room, b.image, b.start, fit, b.param, b.state)
    z.fill_(torch.nan)
    support.fill_(torch.nan)
    if kind == "sparse":
        _significance(run, b, heat, z)
    elif kind == "noisy":
        run("lattice_support", b.room, heat, b.where, support, b.param, b.state)
    b.significance.copy_(z)
    there = torch.arange(b.room, device=heat.device) < b.state[State.COUNT]
    return _columns(run, b, _Seen(b.height.double(), b.sharpness, z, support, fit, there, b.tables[1]))


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Arrays of one entry per candidate; `there` says which places hold one, `table` is that of the full fits."""

    height: Any
    sharpness: Any
    significance: Any
    support: Any
    fit: Any
    there: Any
    table: Any


def _columns(run: Launcher, b: Buffers, seen: _Seen) -> Any:
    import torch

    there, param = seen.there, b.param
    height = torch.where(there, seen.height, 0.5)
    relative, d_prime, slope, background = _ratios(seen, param[Param.SIGMA])
    top = quantile(height, there, TOP)
    clear = there & (height >= 0.5 * top)
    typical = quantile(relative, clear, 0.75).clamp(min=1e-30)
    logit, amplitude, known = _logit(height), _log_ratio(relative, typical), there & torch.isfinite(seen.support)
    support = _logit(torch.where(known, seen.support, 0.5))
    one = torch.ones_like(height)
    own = seen.table[:, Column.AMPLITUDE]
    own_amplitude = _log_ratio(own, quantile(own, clear, 0.75))
    z = sqrt(pi) * param[Param.SIGMA] * own / seen.table[:, Column.NOISE].clamp(min=1e-30)
    tall = own_amplitude > MAIN
    *company, nearest_main = _company(run, b, there, relative, logit, amplitude, clear & tall).unbind(1)
    faint_share = (clear & ~tall).sum().double() / (clear & tall).sum().clamp(min=1)
    columns = [
        logit,
        one * _logit(top),
        seen.sharpness,
        amplitude,
        _log_z(d_prime),
        _log_z(seen.significance),
        seen.fit[:, Fit.MISFIT].nan_to_num(1.0).clamp(0.3, 10.0).log(),
        seen.fit[:, Fit.SHIFT].nan_to_num(1.0),
        (slope / typical).clamp(0.0, 3.0),
        (background / typical).clamp(-3.0, 3.0),
        seen.fit[:, Fit.INSIDE],
        *company,
        support,
        one * quantile(support, known, 0.9),
        known.double(),
        one * param[Param.LATTICE],
        one * param[Param.NOISE_FRACTION],
        own_amplitude,
        _log_z(z),
        one,
        nearest_main,
        one * faint_share.clamp(max=2.0),
    ]
    return torch.where(there[:, None], torch.stack(columns, 1), 0.0).float()


def _ratios(seen: _Seen, sigma: Any) -> tuple[Any, Any, Any, Any]:
    """Relative height, d', slope and background of `CandidateFeatures`, nought where not known."""
    import torch

    fit, root = seen.fit, sqrt(pi)
    height, level, noise = fit[:, Fit.HEIGHT], fit[:, Fit.LEVEL], fit[:, Fit.NOISE]
    known = seen.there & torch.isfinite(height)
    size = torch.where(known, height.abs(), 0.0).max()
    tall = quantile(height, known, TYPICAL_QUANTILE)
    typical = torch.where(tall > 0.0, tall, torch.where(size > 0.0, size, 1.0))
    least = torch.maximum(noise, root * sigma * height.abs() / MOST_SIGNIFICANT)
    d_prime = root * sigma * height / torch.where(least > 0.0, least, 1.0)
    background = (level - quantile(level, known, 0.5)) / typical
    parts = (height / typical, d_prime, fit[:, Fit.SLOPE] / typical, background)
    relative, d_prime, slope, background = (part.nan_to_num(0.0) for part in parts)
    return relative, d_prime, slope, background


def _logit(p: Any) -> Any:
    clipped = p.clamp(1e-3, 1.0 - 1e-3)
    return (clipped / (1.0 - clipped)).log()


def _log_ratio(part: Any, whole: Any) -> Any:
    return (part / whole.clamp(min=1e-30)).clamp(0.02, 5.0).log()


def _log_z(z: Any) -> Any:
    return z.nan_to_num(0.0).clamp(0.0, 60.0).log1p()


def _company(run: Launcher, b: Buffers, there: Any, relative: Any, logit: Any, amplitude: Any, chief: Any) -> Any:
    import torch

    inside = there[:, None]
    low, high = (torch.where(inside, b.start, end) for end in (torch.inf, -torch.inf))
    corner = torch.cat([low.amin(0), high.amax(0)])
    corner = torch.where(there.any(), corner, 0.0)
    bins = torch.empty(b.room, dtype=torch.int32, device=there.device)
    run("company_bins", b.room, b.start, corner, bins, b.param, b.state)
    ordered, order = torch.sort(bins, stable=True)
    b.company.zero_()
    run("bin_edges", b.room, ordered, b.company[0], b.company[1])
    out = torch.zeros((b.room, 6), dtype=torch.float64, device=there.device)
    places = (b.start, corner, order, b.company[0], b.company[1])
    run("company", b.room, *places, relative.contiguous(), logit, amplitude, chief.to(torch.int32), out, b.param, b.state)
    return out


def _significance(run: Launcher, b: Buffers, heat: Any, z: Any) -> None:
    """Band-passed `contrast` at each candidate over its noise."""
    import torch

    pixels, contrast = b.small.numel(), b.contrast
    narrow, wide, narrow2, wide2 = (torch.empty_like(contrast) for _ in range(4))
    run("band_axis", pixels, contrast, contrast, narrow2, wide2, b.param, 1)
    run("band_axis", pixels, narrow2, wide2, narrow, wide, b.param, 0)
    some = torch.empty(-(-b.padded[0] // 3) * -(-b.padded[1] // 3), dtype=torch.float32, device=contrast.device)
    run("third_pixels", some.numel(), narrow, wide, some, b.param)
    run("third_median", 1, torch.sort(some).values, b.param, b.state)
    run("deviations", some.numel(), some, b.state)
    double = contrast.double()
    sums = torch.stack([double.sum(), (double * double).sum()])
    run("noise_level", 1, torch.sort(some).values, sums, b.param, b.state)
    run("significance", b.room, heat, b.where, z, narrow, wide, b.param, b.state)
