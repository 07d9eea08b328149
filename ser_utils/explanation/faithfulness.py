"""How far an attribution can be trusted: does the model lean on what the map says, and does the map see the model?"""

import dataclasses

import keras
import librosa
import numpy as np
import pandas as pd
from keras import ops
from scipy.ndimage import gaussian_filter
from scipy.stats import binomtest, rankdata

from ser_utils.explanation import attribution as explain
from ser_utils.training.fit import code_of, compile_for_lengths, fit_or_load
from ser_utils.training.folds import ClipBatches
from ser_utils.workspace import content_key

STEPS, SHARE = 20, 0.2  # of removal curves; of the points that sufficiency and comprehensiveness ask about
BASELINES = ("energy", "random")  # maps that know nothing of the model, to be beaten
FEWEST = 5  # clips of which a check can be passed: with 4 of 4 a sign test has p = 1/16
LEARNED = 0.9  # share of shuffled labels learned from which on the network is one to compare with

# What a method has to do, by which column of the table, from where on it does, and from where on it fails even where
# clips are fewer than FEWEST. Intervals and p have no such limit: of so few clips they are not known.
RULES = pd.DataFrame(
    [
        ("finds the cue", "localisation_less_energy_low", ">", 0.0, np.nan),
        ("tells it from decoys", "decoys_p", "<", 0.05, np.nan),
        ("follows the weights", "likeness_randomised", "<", 0.5, 0.95),
        ("follows the labels", "likeness_shuffled", "<", 0.5, 0.95),
        ("is stable", "stability", ">", 0.7, 0.7),
        ("sums up", "completeness_gap", "<", 0.01, np.nan),
        ("falls faster than at random", "deletion_less_random_high", "<", 0.0, np.nan),
        ("falls faster than by energy", "deletion_less_energy_high", "<", 0.0, np.nan),
        ("rises faster than at random", "insertion_less_random_low", ">", 0.0, np.nan),
    ],
    columns=["check", "column", "direction", "limit", "fails_alone"],
)
NECESSARY = ("follows the weights", "falls faster than at random")


def removal_curve(score, x, attribution, *, fill, steps=STEPS, keep=False):
    """The score as points are taken away, the most important first.

    score : function (batch, ...) -> (batch,); x, attribution : (1, ...)
    fill : float, broadcast to x, what stands for absence; steps : how many removals
    keep : start from nothing and put the most important points in instead (insertion)
    Returns shares of points (steps + 1,) and scores (steps + 1,).
    """
    x = np.asarray(x, np.float32)
    order = np.argsort(-np.asarray(attribution).ravel(), kind="stable")
    shares = np.linspace(0, 1, steps + 1)
    absent = np.broadcast_to(np.asarray(fill, np.float32), x.shape)
    start, end = (absent, x) if keep else (x, absent)
    copies = np.repeat(start, steps + 1, axis=0).reshape(steps + 1, -1)
    for copy, share in zip(copies, shares, strict=True):
        chosen = order[: round(share * len(order))]
        copy[chosen] = end.ravel()[chosen]
    scores = score(ops.convert_to_tensor(copies.reshape(-1, *x.shape[1:])))
    return shares, ops.convert_to_numpy(scores)


def area(shares, scores):
    """Area under a removal curve, the scores' mean height."""
    return float(np.trapezoid(scores, shares))


def sparseness(attribution):
    """Gini index of the absolute values: 0 if all are equal, near 1 if one point has it all (Hurley & Rickard 2009)."""
    values = np.sort(np.abs(np.asarray(attribution)).ravel())
    n, total = len(values), values.sum()
    if total == 0:
        return 0.0
    return float(1 - 2 * np.sum(values / total * (n - np.arange(1, n + 1) + 0.5) / n))


def cue_region(cues, n_frames, *, hop_s, n_mels, fmax):
    """Where planted cues are on a log-mel grid: bool (n_frames, n_mels).

    cues : lines of cues.csv (see `demo_corpus.make_planted_corpus`); hop_s : s a frame; fmax : Hz
    """
    milliseconds = 1000 * hop_s * np.arange(n_frames)
    bands_hz = librosa.mel_frequencies(n_mels + 2, fmin=0, fmax=fmax)[1:-1]
    mask = np.zeros((n_frames, n_mels), bool)
    for cue in cues.itertuples():
        when = (milliseconds >= cue.start_ms) & (milliseconds <= cue.end_ms)
        mask |= when[:, None] & ((bands_hz >= cue.low_hz) & (bands_hz <= cue.high_hz))[None]
    return mask


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


def baselines(subject, x, *, seed=0):
    """Maps that know nothing of the model: how far each point is from absence, unscaled, and chance. x : (1, ...)"""
    rng = np.random.default_rng(seed)
    return {"energy": np.abs(x - subject.absence(x)) * subject.spread, "random": rng.random(np.shape(x))}


def judge(subject, x, label, maps):
    """Every check of one clip that wants its curves alone.

    subject : explain.Subject; x : (1, ...); label : int; maps : dict method -> (1, ...)
    Returns a table, one row per method: deletion and insertion (areas), sparseness, and the curves themselves as
    arrays (STEPS + 1,), deletion_curve and insertion_curve; comprehensiveness, how far the score falls when the top
    SHARE of points is removed, and sufficiency, when only that is left (DeYoung et al. 2020).
    """
    score, absent, top = subject.score(label, x), subject.absence(x), round(SHARE * STEPS)
    rows = []
    for method, values in maps.items():
        shares, falling = removal_curve(score, x, values, fill=absent)
        _, rising = removal_curve(score, x, values, fill=absent, keep=True)
        rows.append(
            {
                "method": method,
                "deletion": area(shares, falling),
                "insertion": area(shares, rising),
                "comprehensiveness": float(falling[0] - falling[top]),
                "sufficiency": float(rising[-1] - rising[top]),
                "sparseness": sparseness(values),
                "deletion_curve": falling,
                "insertion_curve": rising,
            }
        )
    return pd.DataFrame(rows)


def stability(subject, x, label, maps, *, noise=0.1, seed=0):
    """How alike maps stay when noise that does not change the prediction is added (Alvarez-Melis & Jaakkola 2018).

    noise : its standard deviation as a share of the input's, halved until the prediction stays what it was
    Returns a dict method -> rank correlation, over those of `maps` that are the subject's methods.
    """
    rng, wanted = np.random.default_rng(seed), subject.predict(x).argmax()
    direction = rng.standard_normal(np.shape(x)).astype(np.float32) * np.std(x)
    for halvings in range(8):
        noisy = np.asarray(x, np.float32) + noise / 2**halvings * direction
        if subject.predict(noisy).argmax() == wanted:
            break
    again = explain.maps(_quickly(subject), noisy, label, seed=seed)
    return {method: rank_correlation(maps[method], again[method]) for method in maps if method in again}


def _quickly(subject):
    """The subject without more steps than integrated gradients begin with: likeness does not need their exact sum."""
    return dataclasses.replace(subject, most_steps=0)


def sanity(subjects, clips, maps, *, seed=0):
    """Likeness of maps to the trained model's when the model is another one (Adebayo et al. 2018).

    subjects : dict name -> explain.Subject with other weights, as `randomisations` gives them
    clips : list of (x (1, ...), label); maps : list of dicts method -> (1, ...), of the trained model
    Returns a table `name, method, spearman, likeness, ssim, n`, means over the n clips. Likeness is the size of
    Spearman's correlation: a map turned upside down follows the trained model, too. Baselines, which see no model,
    are left out.
    """
    rows = []
    for name, subject in subjects.items():
        for (x, label), before in zip(clips, maps, strict=True):
            after = explain.maps(_quickly(subject), x, label, seed=seed)
            for method, other in after.items():
                alike = rank_correlation(before[method], other)
                ssim = structural_similarity(before[method][0], other[0])
                rows.append((name, method, alike, abs(alike), ssim))
    table = pd.DataFrame(rows, columns=["name", "method", "spearman", "likeness", "ssim"])
    grouped = table.groupby(["name", "method"], sort=False)
    return grouped.mean().assign(n=grouped.size()).reset_index()


def interval(values, *, n_resamples=1000, seed=0):
    """Mean over clips with a 95 % bootstrap interval, NaN of fewer than FEWEST. values : (n,). Returns mean, low, high."""
    values = np.asarray(values, float)
    if len(values) < FEWEST:
        return float(values.mean()), np.nan, np.nan
    draws = np.random.default_rng(seed).integers(len(values), size=(n_resamples, len(values)))
    return float(values.mean()), *map(float, np.quantile(values[draws].mean(axis=1), [0.025, 0.975]))


def summarise(judged, *, n_resamples=1000, seed=0):
    """One row per method: means over clips, and how areas differ from the baselines', clip by clip.

    judged : rows of `judge` of several clips, with `clip`, and whatever else was measured per clip
    Returns a table indexed by method; `deletion_less_random` and its like come with _low and _high, 95 %.
    """
    numbers = judged.select_dtypes("number").columns.drop("clip", errors="ignore")
    grouped = judged.groupby("method", sort=False)
    table = grouped[list(numbers)].mean().assign(clips=grouped.size())
    options = {"n_resamples": n_resamples, "seed": seed}
    for area_of in ("deletion", "insertion"):
        for baseline in (b for b in BASELINES if b in table.index):
            table = table.join(less(judged, area_of, baseline, **options))
    return table


def less(rows, value, baseline, *, n_resamples=1000, seed=0):
    """How far every other method lies above a baseline on the same clips.

    rows : table clip, method, `value`; baseline : the method to be compared with
    Returns a table indexed by method: `{value}_less_{baseline}`, the mean, and its ends, _low and _high, 95 %.
    """
    wide = rows.pivot(index="clip", columns="method", values=value)
    more = wide.drop(columns=baseline).sub(wide[baseline], axis=0)
    ends = {method: interval(own, n_resamples=n_resamples, seed=seed) for method, own in more.items()}
    columns = [f"{value}_less_{baseline}{end}" for end in ("", "_low", "_high")]
    return pd.DataFrame.from_dict(ends, orient="index", columns=columns)


def decoys_p(cue_wins):
    """Chance of so many clips with more on the cue than on the decoys if it were a coin's toss (sign test).

    NaN of fewer than FEWEST clips, which cannot show it.
    """
    if len(cue_wins) < FEWEST:
        return np.nan
    return float(binomtest(int(np.sum(cue_wins)), len(cue_wins), alternative="greater").pvalue)


def verdicts(table, rules=RULES):
    """Hold every method to the rules.

    table : a row per model and method, with the columns that `rules` name; NaN: the check was not made. How many
        clips a column with `fails_alone` rests on stands beside it, in `{column}_n`.
    Returns the checks as a table of True, False and None, with `failed` and a plain `verdict`: trust, where none
    fails; do not, where one of NECESSARY does; with care, elsewhere; unknown, where a NECESSARY one was not made.
    BASELINES, whose maps no weights have made, do not follow the weights by definition.
    """
    passed, nothing = pd.DataFrame(index=table.index), pd.Series(np.nan, table.index)
    for rule in rules.itertuples():
        values = table.get(rule.column, nothing)
        sign = 1 if rule.direction == ">" else -1
        known = values.notna()
        if not np.isnan(rule.fails_alone):
            enough = table.get(f"{rule.column}_n", nothing) >= FEWEST
            known &= enough | (sign * values <= sign * rule.fails_alone)
        passed[rule.check] = (sign * values > sign * rule.limit).astype(object).where(known, None)
    passed.loc[table.index.get_level_values(-1).isin(BASELINES), "follows the weights"] = False
    failed = passed.apply(
        lambda row: [name for name, met in row.items() if met is False or met is np.False_], axis=1
    )

    def plain(place):
        lost = failed.iloc[place]
        if any(name in lost for name in NECESSARY):
            return "do not trust"
        if any(passed.iloc[place][name] is None for name in NECESSARY):
            return "unknown"
        return "with care" if lost else "trust"

    words = [plain(place) for place in range(len(table))]
    return passed.assign(failed=failed.map(", ".join), verdict=words)


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


def randomisations(subject, *, most=None, seed=0):
    """A subject with its weights shuffled, in two ways.

    most : int, down to (or at) so many layers, at even distances from the last to the first; None is every layer
    Returns dicts name -> explain.Subject: cascading (from the output down to the named layer), whose first is the
    last layer alone and whose last are all layers, and independent (the named layer alone, all but the last).
    """

    def with_weights(layers):
        return dataclasses.replace(subject, model=randomised(subject.model, layers=layers, seed=seed))

    layers = weighted_layers(subject.model)
    depths = sorted(set(np.linspace(0, len(layers) - 1, most or len(layers)).astype(int)))
    cascading = {layers[depth]: with_weights(layers[: depth + 1]) for depth in depths}
    return cascading, {layers[depth]: with_weights([layers[depth]]) for depth in depths[1:]}


def fit_shuffled_labels(
    path, model, clips, labels, *, scale, epochs, batch_size=16, learning_rate=3e-3, seed=0
):
    """The same network from new weights, trained on labels dealt at random: it can learn by heart, not the task.

    path : of the .keras file; model : functional keras.Model of (features, n_frames)
    clips : training clips, list of (n_frames, n_features); labels : int (n_clips,); scale : (mean, spread) of features
    Returns Fitted; the accuracy in its history says how much was learned by heart.
    """
    dealt = np.random.default_rng(seed).permutation(labels)
    targets = np.eye(model.output_shape[-1], dtype="float32")[dealt]
    scales = tuple(np.broadcast_to(one, (len(clips), len(one))) for one in scale)
    batches = ClipBatches(clips, targets, scale=scales, batch_size=batch_size, shuffle=True, seed=seed)

    def build():
        copy = keras.models.clone_model(model)
        return compile_for_lengths(
            copy, keras.optimizers.Adam(learning_rate), "categorical_crossentropy", metrics=["accuracy"]
        )

    key = content_key(
        np.concatenate(clips), dealt, *scale, batch_size, learning_rate, model.to_json(), code_of(ClipBatches)
    )
    return fit_or_load(
        path, build, batches, key=key, seed=seed, epochs=epochs, monitor="loss", title=path.stem
    )
