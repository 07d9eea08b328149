"""How far an attribution can be trusted: does the model lean on what the map says, and does the map see the model?"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import librosa
import numpy as np
import pandas as pd
from keras import ops
from scipy.ndimage import gaussian_filter
from scipy.special import expit
from scipy.stats import binomtest, spearmanr
from sklearn.metrics import roc_auc_score

from ser_utils.explanation.attribution import (
    BASELINES,
    Clip,
    Explained,
    Maps,
    Material,
    Score,
    Subject,
    completeness_gap,
    integrated_gradients,
    stretch,
)
from ser_utils.training.fit import Fitted, code_of, compile_for_lengths, fit_or_load
from ser_utils.training.folds import ClipBatches
from ser_utils.workspace import content_key

MapsOfClips = Sequence[Sequence[Maps]]  # maps[network][clip], as `all_maps` gives them
STEPS, SHARE = 20, 0.2  # of removal curves; of the points that sufficiency and comprehensiveness ask about
FILLS = ("absence", "speech")  # what stands where points were removed
FEWEST = 5  # clips of which a check can be shown: with 4 of 4 a sign test has p = 1/16
WORTH_TRACING = 10  # steps of a training: TensorFlow traces it for as long as so many steps take
BATCH, RATE = 16, 3e-3  # of trainings on shuffled labels
LEARNED = 0.9  # share of shuffled labels learned from which on the network is one to compare with

# What a method has to do, and by which column of the table. Where `planted`, the planted corpus shows it of the method,
# for every network. A check that was not made is not shown, and counts as such.
RULES = pd.DataFrame(
    [
        ("finds the cue", "localisation_less_energy_low", ">", 0.0, True),
        ("tells it from decoys", "decoys_p", "<", 0.05, True),
        ("follows the weights", "likeness_randomised", "<", 0.5, False),
        ("follows the labels", "likeness_shuffled", "<", 0.5, False),
        ("is stable", "stability_less_null_low", ">", 0.0, False),
        ("falls faster than at random", "deletion_less_random_high", "<", 0.0, False),
        ("falls faster than by energy", "deletion_less_energy_high", "<", 0.0, False),
        ("rises faster than at random", "insertion_less_random_low", ">", 0.0, False),
    ],
    columns=["check", "column", "direction", "limit", "planted"],
)
NECESSARY = ("follows the weights", "falls faster than at random")
VERDICTS = ("trust", "with care", "not shown", "do not trust")  # the best first


def removal_curve(
    score: Score, x: np.ndarray, attribution: np.ndarray, *, fill: Any, steps: int = STEPS, keep: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The score as points are taken away, the most important first.

    Parameters
    ----------
    score : function (batch, ...) -> (batch,)
    x, attribution : (1, ...)
    fill : float, broadcast to x, what stands where points were removed
    steps : how many removals
    keep : start from nothing and put the most important points in instead (insertion)

    Returns
    -------
    shares of points (steps + 1,) and scores (steps + 1,)

    Source: Petsiuk et al. 2018 (RISE).
    """
    x = np.asarray(x, np.float32)
    order = np.argsort(-np.asarray(attribution).ravel(), kind="stable")
    shares = np.linspace(0, 1, steps + 1)
    absent = np.broadcast_to(np.asarray(fill, np.float32), x.shape)
    start, end = (absent, x) if keep else (x, absent)
    copies = np.repeat(start, steps + 1, axis=0).reshape(steps + 1, -1)
    for copy, share in zip(copies, shares, strict=True):
        moved = order[: round(share * len(order))]
        copy[moved] = end.ravel()[moved]
    scores = score(ops.convert_to_tensor(copies.reshape(-1, *x.shape[1:])))
    return shares, ops.convert_to_numpy(scores)


def area(shares: np.ndarray, scores: np.ndarray) -> float:
    """Area under a removal curve, the mean height of the scores."""
    return float(np.trapezoid(scores, shares))


def sparseness(attribution: np.ndarray) -> float:
    """Gini index of the absolute values: 0 if all are equal, near 1 if one point has it all (Hurley & Rickard 2009)."""
    values = np.sort(np.abs(np.asarray(attribution)).ravel())
    n, total = len(values), values.sum()
    if total == 0:
        return 0.0
    return float(1 - 2 * np.sum(values / total * (n - np.arange(1, n + 1) + 0.5) / n))


def cue_region(cues: pd.DataFrame, n_frames: int, *, hop_s: float, n_mels: int, fmax: float) -> np.ndarray:
    """Where planted cues are on a log-mel grid: bool (n_frames, n_mels).

    Parameters
    ----------
    cues : lines of cues.csv (see `corpora.demo.make_planted_corpus`)
    hop_s : s a frame
    fmax : Hz
    """
    milliseconds = 1000 * hop_s * np.arange(n_frames)
    bands_hz = librosa.mel_frequencies(n_mels + 2, fmin=0, fmax=fmax)[1:-1]
    mask = np.zeros((n_frames, n_mels), bool)
    for cue in cues.itertuples():
        when = (milliseconds >= cue.start_ms) & (milliseconds <= cue.end_ms)
        mask |= when[:, None] & ((bands_hz >= cue.low_hz) & (bands_hz <= cue.high_hz))[None]
    return mask


def localisation(attribution: np.ndarray, region: np.ndarray) -> float:
    """Chance that a point inside the true region gets more than one outside: ROC AUC, 0.5 for a random map.

    Raises
    ------
    ValueError : if the region (bool, as the attribution) has no inside or no outside
    """
    region = np.asarray(region, bool).ravel()
    if region.all() or not region.any():
        raise ValueError(
            f"region needs points inside and outside. Received: {region.sum()} inside, {(~region).sum()} outside"
        )
    return float(roc_auc_score(region, np.asarray(attribution).ravel()))


def found_cues(networks: Sequence[Explained], maps: MapsOfClips, region_of: Callable[..., np.ndarray]) -> pd.DataFrame:
    """How well each map finds the planted cue: a table clip, method, localisation, cue_over_decoys.

    Parameters
    ----------
    networks, maps : trained on the planted corpus, and their maps, see `all_maps`
    region_of : function (utterance, n_frames, decoys=False) -> bool (n_frames, n_mels)
    """
    rows = []
    for clip, method, values in each_map(networks, maps):
        cue, decoy = (region_of(clip.utterance, clip.x.shape[1], decoys=decoys) for decoys in (False, True))
        over = float(values[0][cue].mean() > values[0][decoy].mean())
        rows.append((clip.utterance, method, localisation(values, cue), over))
    return pd.DataFrame(rows, columns=["clip", "method", "localisation", "cue_over_decoys"])


def summarise_cues(rows: pd.DataFrame, **bootstrap) -> pd.DataFrame:
    """One row per method of what `found_cues` measured, with intervals, the sign test, and how far above energy."""
    by_method = rows.drop(columns="clip").groupby("method", sort=False)
    table = by_method.mean().assign(decoys_p=by_method["cue_over_decoys"].agg(decoys_p))
    ends = {name: interval(values, **bootstrap)[1:] for name, values in by_method["localisation"]}
    table[["low", "high"]] = pd.DataFrame(ends).T
    return table.join(less(rows, "localisation", "energy", **bootstrap))


def each_map(networks: Sequence[Explained], maps: MapsOfClips) -> Iterator[tuple[Clip, str, np.ndarray]]:
    """Yield (clip, method, map) of all networks."""
    for network, of_network in zip(networks, maps, strict=True):
        for clip, of_clip in zip(network.clips, of_network, strict=True):
            for method, values in of_clip.items():
                yield clip, method, values


def removal_scores(subject: Subject, clip: Clip, maps: Maps, other: np.ndarray) -> pd.DataFrame:
    """Deletion and insertion of one clip by every map, with both fills: absence, and other speech at the clip's level.

    Absence is also where occlusion and integrated gradients start from, which may favour them; other speech is not.

    Parameters
    ----------
    maps : method -> (1, ...)
    other : x (1, ...) of another clip

    Returns
    -------
    a row per method and fill: deletion and insertion, areas of the log-odds; deletion_p and insertion_p, areas of the
    probability (as RISE has it); comprehensiveness, how far the score falls when the top SHARE of points is gone;
    sufficiency, how much is missing when only that is there (DeYoung et al. 2020); sparseness; and the curves,
    (STEPS + 1,), deletion_curve and insertion_curve
    """
    score, top, rows = subject.score(clip.label, clip.x), round(SHARE * STEPS), []
    fills = dict(zip(FILLS, (subject.absence(clip.x), subject.other_speech(clip.x, other)), strict=True))
    for method, values in maps.items():
        for name, fill in fills.items():
            shares, falling = removal_curve(score, clip.x, values, fill=fill)
            _, rising = removal_curve(score, clip.x, values, fill=fill, keep=True)
            rows.append(
                {
                    "method": method,
                    "fill": name,
                    "deletion": area(shares, falling),
                    "insertion": area(shares, rising),
                    "deletion_p": area(shares, expit(falling)),
                    "insertion_p": area(shares, expit(rising)),
                    "comprehensiveness": float(falling[0] - falling[top]),
                    "sufficiency": float(rising[-1] - rising[top]),
                    "sparseness": sparseness(values),
                    "deletion_curve": falling,
                    "insertion_curve": rising,
                }
            )
    return pd.DataFrame(rows)


def removals_of(networks: Sequence[Explained], maps: MapsOfClips) -> pd.DataFrame:
    """`removal_scores` of all clips of all networks, with `model` and `clip`; the other speech is the next clip's."""
    tables = []
    for network, of_network in zip(networks, maps, strict=True):
        for place, (clip, of_clip) in enumerate(zip(network.clips, of_network, strict=True)):
            other = network.clips[(place + 1) % len(network.clips)]
            table = removal_scores(network.subject, clip, of_clip, other.x)
            tables.append(table.assign(model=network.name, clip=f"{network.fold}/{clip.utterance}"))
    return pd.concat(tables, ignore_index=True)


def quickly(subject: Subject) -> Subject:
    """The subject with integrated gradients at their 50 equal steps: likeness does not need their exact sum."""
    return dataclasses.replace(subject, most_steps=0)


def stability(network: Explained, maps: Sequence[Maps], *, noise: float = 0.1, seed: int = 0) -> pd.DataFrame:
    """How alike maps stay when noise is added that does not change the prediction (Alvarez-Melis & Jaakkola 2018).

    Parameters
    ----------
    maps : of each clip of the network, method -> (1, ...)
    noise : its standard deviation as a share of the input's, halved until the prediction stays what it was

    Returns
    -------
    a row per clip and method: stability, the rank correlation; and its null, the correlation with the map of the next
    clip brought to the same length, which is how alike any two maps of the network are
    """
    subject, rows = network.subject, []
    for place, (clip, before) in enumerate(zip(network.clips, maps, strict=True)):
        noisy = with_noise(subject, clip.x, noise=noise, seed=seed + place)
        again = quickly(subject).maps(noisy, clip.label, seed=seed)
        elsewhere = maps[(place + 1) % len(maps)]
        for method, values in again.items():
            null = rank_correlation(before[method], stretch(elsewhere[method], clip.x.shape[1:]))
            rows.append((network.name, place, method, rank_correlation(before[method], values), null))
    return pd.DataFrame(rows, columns=["model", "clip", "method", "stability", "null"])


def with_noise(subject: Subject, x: np.ndarray, *, noise: float, seed: int = 0) -> np.ndarray:
    """Add noise to x (1, ...), halved until the prediction stays what it was."""
    rng, wanted = np.random.default_rng(seed), subject.predict(x).argmax()
    direction = rng.standard_normal(np.shape(x)).astype(np.float32) * np.std(x)
    for halvings in range(8):
        noisy = np.asarray(x, np.float32) + noise / 2**halvings * direction
        if subject.predict(noisy).argmax() == wanted:
            break
    return noisy


@contextmanager
def with_weights(subject: Subject, weights: Sequence[np.ndarray]) -> Iterator[Subject]:
    """The subject while its model has other weights: the same network, so that it is not compiled again."""
    before = subject.model.get_weights()
    subject.model.set_weights(weights)
    try:
        yield subject
    finally:
        subject.model.set_weights(before)


def sanity(
    subject: Subject,
    weights: Mapping[str, Sequence[np.ndarray]],
    clips: Sequence[Clip],
    maps: Sequence[Maps],
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Likeness of maps to the trained model's when the model has other weights (Adebayo et al. 2018).

    Parameters
    ----------
    weights : name -> weights, as `randomisations` gives them
    maps : of each clip, method -> (1, ...), of the trained model

    Returns
    -------
    a table `name, method, spearman, likeness, ssim`, a row per clip. Likeness is the size of Spearman's correlation: a
    map turned upside down follows the trained model, too. Baselines, which see no model, are left out.
    """
    rows = []
    for name, other in weights.items():
        with with_weights(subject, other):
            for clip, before in zip(clips, maps, strict=True):
                after = quickly(subject).maps(clip.x, clip.label, seed=seed)
                for method, values in after.items():
                    alike = rank_correlation(before[method], values)
                    ssim = structural_similarity(before[method][0], values[0])
                    rows.append((name, method, alike, abs(alike), ssim))
    return pd.DataFrame(rows, columns=["name", "method", "spearman", "likeness", "ssim"])


def interval(values: Sequence[float], *, n_resamples: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """Mean over clips with the ends of its 95 % bootstrap interval, NaN of fewer than FEWEST."""
    values = np.asarray(values, float)
    if len(values) < FEWEST:
        return float(values.mean()), np.nan, np.nan
    draws = np.random.default_rng(seed).integers(len(values), size=(n_resamples, len(values)))
    return float(values.mean()), *map(float, np.quantile(values[draws].mean(axis=1), [0.025, 0.975]))


def less(rows: pd.DataFrame, value: str, baseline: str, **bootstrap) -> pd.DataFrame:
    """How far every other method lies above a baseline on the same clips.

    Parameters
    ----------
    rows : table clip, method, `value`
    baseline : the method to be compared with

    Returns
    -------
    a table indexed by method: `{value}_less_{baseline}`, the mean, and its ends, _low and _high, 95 %
    """
    wide = rows.pivot(index="clip", columns="method", values=value)
    more = wide.drop(columns=baseline).sub(wide[baseline], axis=0)
    ends = {method: interval(values, **bootstrap) for method, values in more.items()}
    columns = [f"{value}_less_{baseline}{end}" for end in ("", "_low", "_high")]
    return pd.DataFrame.from_dict(ends, orient="index", columns=columns)


def summarise_removals(rows: pd.DataFrame, **bootstrap) -> pd.DataFrame:
    """One row per method of one model: means over clips and fills, and how areas differ from the baselines'.

    `deletion_less_random` and its like come with _low and _high, 95 % over clips. Chance has to be beaten with both
    fills: the one that speaks less for the method counts. Energy, which measures the distance from absence, is an
    opponent where absence is the fill.
    """
    grouped = rows.groupby("method", sort=False)
    table = grouped[list(rows.select_dtypes("number").columns)].mean().assign(clips=grouped["clip"].nunique())
    of_fill = dict(list(rows.groupby("fill", sort=False)))
    for value, worse in (("deletion", np.fmax), ("insertion", np.fmin)):
        absence, speech = (less(of_fill[fill], value, "random", **bootstrap) for fill in FILLS)
        energy = less(of_fill["absence"], value, "energy", **bootstrap)
        table = table.join(worse(absence, speech)).join(energy)
    return table


def decoys_p(cue_wins: Sequence[float]) -> float:
    """Chance of so many clips with more on the cue than on the decoys if it were a coin's toss (sign test).

    NaN of fewer than FEWEST clips, which cannot show it.
    """
    if len(cue_wins) < FEWEST:
        return np.nan
    return float(binomtest(int(np.sum(cue_wins)), len(cue_wins), alternative="greater").pvalue)


def of_enough_clips(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Mean of `value` per model and method, NaN of fewer than FEWEST clips, and how many clips, as `{value}_n`."""
    grouped = table.groupby(["model", "method"], sort=False)[value]
    size = grouped.size()
    return pd.DataFrame({value: grouped.mean().where(size >= FEWEST), f"{value}_n": size})


def verdicts(table: pd.DataFrame, planted: pd.DataFrame | None = None) -> pd.DataFrame:
    """Hold every method to the same rules.

    Parameters
    ----------
    table : a row per model and method (index), with the columns that RULES name; NaN: the check was not made, or on too
        few clips to show anything
    planted : a row per method, with the columns of the rules that the planted corpus shows

    Returns
    -------
    the checks as True, False and None (not shown), with `failed`, `missing` and a plain `verdict`: trust, where every
    check is passed; do not trust, where one of NECESSARY fails; not shown, where one of those was not shown; with care,
    elsewhere. So a check that is left out never makes a method trusted. BASELINES, whose maps no weights have made, do not
    follow the weights by definition.
    """
    methods = table.index.get_level_values(-1)
    checks = pd.DataFrame(index=table.index)
    for rule in RULES.itertuples():
        source = planted if rule.planted else table
        known = source is not None and rule.column in source
        values = pd.Series(np.nan, table.index)
        if known:
            column = source[rule.column]
            values[:] = column.reindex(methods).to_numpy() if rule.planted else column.to_numpy()
        passed = values > rule.limit if rule.direction == ">" else values < rule.limit
        checks[rule.check] = passed.astype(object).where(values.notna(), None)
    checks.loc[methods.isin(BASELINES), "follows the weights"] = False
    named = [[(name, row[name]) for name in RULES["check"]] for _, row in checks.iterrows()]
    failed = [[name for name, met in row if met is not None and not met] for row in named]
    missing = [[name for name, met in row if met is None] for row in named]
    words = [_verdict(*lists) for lists in zip(failed, missing, strict=True)]
    return checks.assign(
        failed=[", ".join(names) for names in failed], missing=[", ".join(names) for names in missing], verdict=words
    )


def count_checks(table: pd.DataFrame) -> tuple[int, int, int]:
    """Count the checks that were made and those that were not, and the tests of an interval against 0.

    Parameters
    ----------
    table : as `verdicts` gives it; what the planted corpus shows of a method stands in the row of each network, and is one
        test
    """
    checks = table[RULES["check"]].notna()
    against_zero = RULES[RULES["limit"] == 0]
    of_networks = checks[against_zero.loc[~against_zero["planted"], "check"]].to_numpy().sum()
    of_methods = checks[against_zero.loc[against_zero["planted"], "check"]].groupby(level=-1).any().to_numpy().sum()
    return int(checks.to_numpy().sum()), int((~checks).to_numpy().sum()), int(of_networks + of_methods)


def _verdict(failed, missing):
    if set(failed) & set(NECESSARY):
        return "do not trust"
    if set(missing) & set(NECESSARY):
        return "not shown"
    return "with care" if failed or missing else "trust"


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation of two maps' absolute values; 0 where one of them is flat."""
    a, b = (np.abs(np.asarray(values)).ravel() for values in (first, second))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a, b).statistic)


def structural_similarity(first: np.ndarray, second: np.ndarray) -> float:
    """SSIM of two maps (rows, columns), each scaled to [0, 1] first (Wang et al. 2004, Gaussian taper)."""
    a, b = (_unit(np.abs(np.asarray(values, float))) for values in (first, second))
    mean_a, mean_b, square_a, square_b, product = (gaussian_filter(v, 1.5) for v in (a, b, a * a, b * b, a * b))
    var_a, var_b, covariance = square_a - mean_a**2, square_b - mean_b**2, product - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    alike = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((alike / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def _unit(values):
    return (values - values.min()) / max(np.ptp(values), 1e-12)


def gaps_at_fixed_steps(networks: Sequence[Explained]) -> pd.DataFrame:
    """How far integrated gradients are from summing up after 50 equal steps: `model, gap`, a row per clip."""
    rows = []
    for network in networks:
        for clip in network.clips:
            score, absent = network.subject.score(clip.label, clip.x), network.subject.absence(clip.x)
            values = integrated_gradients(score, clip.x, absent, most_steps=0)
            rows.append((network.name, completeness_gap(score, clip.x, absent, values)))
    return pd.DataFrame(rows, columns=["model", "gap"])


def randomised(model: keras.Model, *, layers: Sequence[str] | None = None, seed: int = 0) -> list[np.ndarray]:
    """The weights of a model, those of some layers shuffled: the sanity check of Adebayo et al. 2018.

    Weights are permuted among themselves, which keeps each tensor's distribution and destroys what was learned.

    Parameters
    ----------
    layers : names of the layers to randomise; None is all

    Returns
    -------
    weights as `set_weights` takes them

    Raises
    ------
    ValueError : for unknown layers, which it names
    """
    named = {layer.name: layer for layer in model.layers}
    if unknown := set(layers or ()) - set(named):
        raise ValueError(f"No layer {', '.join(sorted(unknown))}; the model has {', '.join(named)}.")
    shuffled, rng = {}, np.random.default_rng(seed)
    for name, layer in named.items():
        if layers is None or name in layers:
            values = [rng.permutation(w.ravel()).reshape(w.shape) for w in layer.get_weights()]
            shuffled |= dict(zip(map(id, layer.weights), values, strict=True))
    return [shuffled.get(id(w), w.numpy()) for w in model.weights]


def weighted_layers(model: keras.Model) -> list[str]:
    """Names of the layers that have weights, from the output down: the order of cascading randomisation."""
    return [layer.name for layer in model.layers if layer.weights][::-1]


def randomisations(
    model: keras.Model, *, most: int | None = None, seed: int = 0
) -> dict[str, dict[str, list[np.ndarray]]]:
    """The weights of a model, shuffled in two ways.

    Parameters
    ----------
    most : down to (or at) so many layers, at even distances from the last to the first; None is every layer

    Returns
    -------
    cascading : name of a layer -> weights, shuffled from the output down to that layer: the first has the last layer
        alone, the last has all layers
    independent : the named layer alone, all but the last
    """
    layers = weighted_layers(model)
    depths = sorted(set(np.linspace(0, len(layers) - 1, most or len(layers)).astype(int)))
    down_to = {layers[depth]: layers[: depth + 1] for depth in depths}
    return {
        "cascading": {name: randomised(model, layers=above, seed=seed) for name, above in down_to.items()},
        "independent": {name: randomised(model, layers=[name], seed=seed) for name in list(down_to)[1:]},
    }


def likeness_when_shuffled(
    network: Explained, maps: Sequence[Maps], *, few: int, most_layers: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Likeness of a network's maps as its weights are shuffled, layer by layer (`few` clips) and all of them.

    A slow network is shuffled as a whole only. Returns `model, way, name` (of the layer)`, method, spearman, likeness,
    ssim, decides`; `decides` marks the rows with all layers shuffled, which the verdict reads: five clips, or as many
    as there are.
    """
    subject, model = network.subject, network.subject.model
    if network.is_slow:
        table = sanity(subject, {"all": randomised(model, seed=seed)}, network.clips, maps, seed=seed)
        return table.assign(model=network.name, way="cascading", decides=True)
    tables = []
    for way, weights in randomisations(model, most=most_layers, seed=seed).items():
        for name, shuffled in weights.items():
            decides = way == "cascading" and name == list(weights)[-1]
            n = max(few, FEWEST) if decides else few
            table = sanity(subject, {name: shuffled}, network.clips[:n], maps[:n], seed=seed)
            tables.append(table.assign(model=network.name, way=way, decides=decides))
    return pd.concat(tables, ignore_index=True)


class StopWhenLearned(keras.callbacks.Callback):
    """Ends a training as soon as a share of the training labels is learned."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = logs["accuracy"] >= self.share


def fit_shuffled_labels(
    path: Path, model: keras.Model, material: Material, *, epochs: int, most_clips: int = 0, seed: int = 0
) -> Fitted:
    """Train the same network from new weights on labels dealt at random: it can learn clips by heart, not the task.

    Parameters
    ----------
    path : of the .keras file
    model : functional, of (features, n_frames)
    material : its training clips, labels and scale
    epochs : at most; it ends when LEARNED and a little more is reached, and the accuracy in its history tells
    most_clips : learned by heart, drawn from the training clips; 0 is all
    """
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(len(material.labels))[: most_clips or None]
    clips, dealt = [material.training[i] for i in drawn], rng.permutation(material.labels[drawn])
    targets = np.eye(model.output_shape[-1], dtype="float32")[dealt]
    scale = [np.broadcast_to(values, (len(clips), len(values))) for values in (material.mean, material.spread)]
    batches = ClipBatches(clips, targets, scale=tuple(scale), batch_size=BATCH, shuffle=True, seed=seed)

    def build():
        copy = keras.models.clone_model(model)
        optimizer = keras.optimizers.Adam(RATE)
        options = {"metrics": ["accuracy"], "run_eagerly": epochs * len(batches) < WORTH_TRACING}
        return compile_for_lengths(copy, optimizer, "categorical_crossentropy", **options)

    recipe = (material.mean, material.spread, BATCH, RATE, LEARNED, model.to_json())
    key = content_key(np.concatenate(clips), dealt, *recipe, code_of(ClipBatches))
    options = {"key": key, "seed": seed, "epochs": epochs, "monitor": "loss", "title": path.stem}
    return fit_or_load(path, build, batches, callbacks=[StopWhenLearned(LEARNED + 0.02)], **options)
