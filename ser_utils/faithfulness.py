"""How far an attribution can be trusted: does the model lean on what the map says, and does the map see the model?"""

import keras
import numpy as np
from keras import ops
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata


def removal_curve(score, x, attribution, *, fill, steps=20, keep=False):
    """The score as points are taken away, the most important first.

    score : function (batch, ...) -> (batch,); x, attribution : (1, ...)
    fill : the value that stands for absence; steps : how many removals
    keep : start from nothing and put the most important points in instead (insertion)
    Returns shares of points (steps + 1,) and scores (steps + 1,).
    """
    x = np.asarray(x, np.float32)
    order = np.argsort(-np.asarray(attribution).ravel(), kind="stable")
    shares = np.linspace(0, 1, steps + 1)
    copies = np.repeat(np.full_like(x, fill) if keep else x, steps + 1, axis=0).reshape(steps + 1, -1)
    for copy, share in zip(copies, shares, strict=True):
        chosen = order[: round(share * len(order))]
        copy[chosen] = x.ravel()[chosen] if keep else fill
    scores = score(ops.convert_to_tensor(copies.reshape(-1, *x.shape[1:])))
    return shares, ops.convert_to_numpy(scores)


def area(shares, scores):
    """Area under a removal curve, the scores' mean height."""
    return float(np.trapezoid(scores, shares))


def comprehensiveness(score, x, attribution, *, fill, share=0.2):
    """Fall of the score when the top `share` of points is removed; large is faithful (DeYoung et al. 2020)."""
    _, scores = removal_curve(score, x, attribution, fill=fill, steps=round(1 / share))
    return float(scores[0] - scores[1])


def sufficiency(score, x, attribution, *, fill, share=0.2):
    """Fall of the score when only the top `share` of points is left; small is faithful (DeYoung et al. 2020)."""
    _, scores = removal_curve(score, x, attribution, fill=fill, steps=round(1 / share), keep=True)
    return float(scores[-1] - scores[1])


def sparseness(attribution):
    """Gini index of the absolute values: 0 if all are equal, near 1 if one point has it all (Hurley & Rickard 2009)."""
    values = np.sort(np.abs(np.asarray(attribution)).ravel())
    n, total = len(values), values.sum()
    if total == 0:
        return 0.0
    return float(1 - 2 * np.sum(values / total * (n - np.arange(1, n + 1) + 0.5) / n))


def localisation(attribution, region):
    """Chance that a point inside the true region gets more than one outside: ROC AUC, 0.5 for a random map.

    attribution : float (...); region : bool (...), neither empty nor full
    Raises ValueError if the region has no inside or no outside.
    """
    region = np.asarray(region, bool).ravel()
    inside, outside = int(region.sum()), int((~region).sum())
    if not inside or not outside:
        raise ValueError(
            f"region needs points inside and outside. Received: {inside} inside, {outside} outside"
        )
    ranks = rankdata(np.asarray(attribution).ravel())
    return float((ranks[region].sum() - inside * (inside + 1) / 2) / (inside * outside))


def rank_correlation(one, other):
    """Spearman's correlation of two maps' absolute values; 0 where one of them is flat."""
    a, b = (rankdata(np.abs(np.asarray(part)).ravel()) for part in (one, other))
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def structural_similarity(one, other, *, sigma=1.5):
    """SSIM of two maps, each scaled to [0, 1] first (Wang et al. 2004, Gaussian taper). Arrays (rows, columns)."""
    a, b = (_unit(np.abs(np.asarray(part, float))) for part in (one, other))
    mean_a, mean_b = gaussian_filter(a, sigma), gaussian_filter(b, sigma)
    var_a = gaussian_filter(a * a, sigma) - mean_a**2
    var_b = gaussian_filter(b * b, sigma) - mean_b**2
    both = gaussian_filter(a * b, sigma) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    ssim = (
        (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    )
    return float(ssim.mean())


def _unit(values):
    return (values - values.min()) / max(np.ptp(values), 1e-12)


def randomised(model, *, layers=None, seed=0):
    """A copy of a model whose layers have fresh weights: the sanity check of Adebayo et al. 2018.

    layers : names of the layers to randomise; None is all. Weights are permuted among themselves, which keeps
        each tensor's distribution and destroys what was learned.
    Returns a keras.Model. Raises ValueError naming unknown layers.
    """
    named = {layer.name: layer for layer in model.layers}
    if unknown := set(layers or ()) - set(named):
        raise ValueError(f"No layer {', '.join(sorted(unknown))}; the model has {', '.join(named)}.")
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    rng = np.random.default_rng(seed)
    for layer in copy.layers:
        if layers is None or layer.name in layers:
            layer.set_weights([rng.permutation(w.ravel()).reshape(w.shape) for w in layer.get_weights()])
    return copy


def weighted_layers(model):
    """Names of the layers that have weights, from the output down: the order of cascading randomisation."""
    return [layer.name for layer in model.layers if layer.weights][::-1]
