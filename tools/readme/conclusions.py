"""What README's tables say, in words."""

import pandas as pd

from ser_utils.evaluation import metrics
from ser_utils.evaluation.results import label_of
from ser_utils.profiles import settings, systems
from tools.readme.datasets import NOT_RANDOM, Dataset, recorded_setting, shown_models

ALPHA = 0.05
BATCHES_OF_ONE = {n: f"batch size 1 beats resizing, {n} layers" for n in (3, 4)}


def conclusions(datasets: list[Dataset]) -> str:
    """What the tables say, in words: a list with a part for each corpus."""
    lines = []
    for data in datasets:
        said = [_against_baseline(data), _below_loudness(data), _at_chance(data), _falls(data)]
        said += [*_at_published_settings(data), _by_earlier_settings(data)]
        lines += [f"- **{data.title}**", *(f"  - {line}" for line in said if line)]
    if beside := _beside_published(datasets):
        lines += ["- **Published scores**", f"  - {beside}"]
    return "\n".join(lines)


def _against_baseline(data) -> str:
    table = data.beaten
    if table.empty:
        return ""
    sure = table[table["p_holm"] < ALPHA]
    if table["n_speakers"].max() < metrics.FEWEST_SPEAKERS:
        return f"{table['n_speakers'].max()} speakers are too few to tell which model beats the MFCC baseline."
    better, worse = (sure[sure["difference"] * sign > 0] for sign in (1, -1))
    said = []
    for what, rows in (("better", better.sort_values("difference")[::-1]), ("worse", worse)):
        gaps = f" ({', '.join(_with_gap(row, data) for row in rows.itertuples())})" if len(rows) else ""
        said.append(f"{_count_of(len(rows))} significantly {what}{gaps}")
    n_speakers = table["n_speakers"].max()
    text = (
        f"Against the MFCC baseline, new speakers: of {len(table)} other models, {' and '.join(said)}; p < {ALPHA} after "
        "Holm's correction."
    )
    least = len(table) * least_p(n_speakers)
    if least < ALPHA:
        return text
    alone = table[(table["low"] > 0) | (table["high"] < 0)].sort_values("difference")[::-1]
    apart = [
        f"{_with_gap(row, data)} ({100 * row.low:+.0f} to {100 * row.high:+.0f}, p {row.p:.2g})"
        for row in alone.itertuples()
    ]
    return (
        f"{text} With {n_speakers} speakers and {len(table)} tests, this correction cannot give a p below {min(1, least):.2g}, so "
        f"no difference can be significant. Before it, the 95 % interval excludes 0 for {', '.join(apart) or 'no model'}."
    )


def _below_loudness(data) -> str:
    """Which models do worse on new speakers than what knows only how loud a recording is."""
    rows = data.whole[data.whole["protocol"] == "speaker"]
    loudness = rows.loc[(rows["system"] == "baseline") & (rows["model"] == "loudness"), "uar"].max()
    shown = [tuple(model) for model in shown_models(rows)]
    below = [
        f"{row.system} {row.model} ({100 * row.uar:.1f})"
        for row in rows[rows["uar"] < loudness].itertuples()
        if (row.system, row.model) in shown and row.system != "baseline"
    ]
    if len(data.sizes):
        sizes = data.sizes[(data.sizes["protocol"] == "speaker") & (data.sizes["uar"] < data.sizes["loudness"])]
        below += [f"{row.system} at its published size n = {row.n} ({100 * row.uar:.1f})" for row in sizes.itertuples()]
    if not below:
        return ""
    return f"Below the baseline that knows only loudness ({100 * loudness:.1f}), new speakers: {', '.join(below)}."


def _chance(data) -> float:
    return data.whole.loc[data.whole["model"] == "chance", "uar"].max()


def least_p(n_speakers: int) -> float:
    """How small p can be where each of n speakers exchanges the answers of two models, or does not."""
    return 2 * 0.5**n_speakers


def _at_chance(data) -> str:
    """Which shown models, baselines aside, may only have guessed outside `paper`: their interval holds the UAR of guessing."""
    rows, shown = data.whole[data.whole["protocol"] != "paper"], shown_models(data.whole)
    chance = _chance(data)
    guessed = [
        f"{row.system} {row.model} under `{row.protocol}` ({100 * row.uar:.1f})"
        for row in rows[rows["uar_low"] <= chance].itertuples()
        if (row.system, row.model) in shown and row.system != "baseline"
    ]
    if not guessed:
        return ""
    return (
        f"Not shown to be better than guessing ({100 * chance:.1f}), because the interval includes it (baselines and `paper` left "
        f"out): {', '.join(guessed)}."
    )


def _by_earlier_settings(data) -> str:
    """Which networks were trained with settings that their profile no longer has."""
    earlier = []
    for name, system in systems().items():
        if name in NOT_RANDOM or data.whole[data.whole["system"] == name].empty:
            continue
        # the notebook of `prototype` trains what stands on its autoencoder
        table = "prototype_classifier" if name == "prototype" else name
        today = settings(table, data.made["profile"], data.name)
        then = {key: recorded_setting(data.made, system, key) for key in today}
        other = [key for key, value in then.items() if value is not None and value != today[key]]
        if other:
            commit = data.made["notebooks"][system.notebook]["commit"][:7]
            earlier.append(f"{name} (`{commit}`; {', '.join(other)})")
    if not earlier:
        return ""
    return (
        "These networks were trained by earlier code, so do not compare them with those of the other corpora: the split, the "
        "network, the loss and the choice of the epoch may differ. In brackets: the commit that trained them, and the settings "
        f"that have other values in `ser_utils/profiles` now. {'; '.join(earlier)}."
    )


def _count_of(n) -> str:
    return {0: "none is", 1: "1 is"}.get(n, f"{n} are")


def _with_gap(row, data) -> str:
    names = {label_of(name): f"{name.system} {name.model}" for name in data.whole.itertuples()}
    return f"{names[row.first]} {100 * row.difference:+.1f}"


def _falls(data) -> str:
    table = data.fall
    if table.empty:
        return ""
    rows = table[(table["protocol"] == "paper") & (table["strictest"] == "speaker") & table["low"].notna()]
    shown = [tuple(model) for model in shown_models(data.whole)]
    if rows.empty:
        return ""
    rows = rows[[(row.system, row.model) in shown for row in rows.itertuples()]]
    sure = rows[(rows["low"] > 0) & (rows["p"] < ALPHA)].sort_values("difference", ascending=False)
    losses = [
        f"{row.system} {row.model} {100 * row.difference:.1f} ({100 * row.low:.0f}–{100 * row.high:.0f})"
        for row in sure.itertuples()
    ]
    count = f"{len(sure)} of the {len(rows)}" if len(sure) else f"none of the {len(rows)}"
    return (
        f"From `paper` to new speakers, on the same clips: {count} models that were tested in both ways "
        f"{'lose' if len(sure) > 1 else 'loses'} UAR with p < {ALPHA}, not corrected for the number of models"
        f"{'. Points lost, with 95 % intervals: ' if losses else ''}{', '.join(losses)}."
    )


def _at_published_settings(data) -> list[str]:
    """What became of the spectrogram CNNs' published trainings, and of the two findings."""
    if not (len(data.nets) and len(data.findings) and len(data.faults)):
        return []
    n_draws, chance, n_speakers = len(data.nets["draws"].iloc[0].split()), _chance(data), data.whole["n_speakers"].max()
    guessed = (data.nets["low"] <= chance) & (chance <= data.nets["high"])
    nets = data.nets[~guessed]
    # draws have three decimals
    reached = sum(round(row.published, 3) <= max(map(float, row.draws.split())) for row in nets.itertuples())
    on_average = sum(round(row.published, 3) <= round(row.best, 3) for row in nets.itertuples())
    cut = [
        f"{row.net} at {row.rate:g} after {row.epochs} of {row.epochs_published} epochs"
        for row in nets[nets["epochs"] < nets["epochs_published"]].itertuples()
    ]
    at_chance = [f"{row.net} at {row.rate:g}" for row in data.nets[guessed].itertuples()]
    left_out = f" Not counted: {', '.join(at_chance)}, at chance in the study and here." if at_chance else ""
    asked = pd.concat([data.findings, data.faults]).set_index(["claim", "protocol"])

    def gain(claim, protocol="paper"):
        row = asked.loc[(claim, protocol)]
        return f"{100 * row['difference']:+.1f} points (p {row['p']:.2g})"

    return [
        f"Of {len(nets)} published trainings of the spectrogram CNNs, made again at their published settings on {n_draws} draws of "
        f"the split, {reached} reach the published accuracy in at least one draw, and {on_average} in the mean of the draws."
        f"{left_out} Stopped early: {', '.join(cut)}.{_of_the_best_net(data.splits)}",
        "The study's first finding is that batch size 1, with clips at their own length, beats resized clips. With three layers, "
        f"the difference is {gain(BATCHES_OF_ONE[3])} under the published split, {gain(BATCHES_OF_ONE[3], 'utterance')} if "
        f"validation chooses the epoch, and {gain(BATCHES_OF_ONE[3], 'speaker')} for new speakers; with four layers, it is "
        f"{gain(BATCHES_OF_ONE[4])}, {gain(BATCHES_OF_ONE[4], 'utterance')} and {gain(BATCHES_OF_ONE[4], 'speaker')}.",
        "Its second finding is that artificial data does not help. We tested the parts of this data one at a time, with resized "
        "clips and the epoch chosen on test. Compared with ten unaltered copies: pitch shift "
        f"{gain('pitch shift of power rows instead of unaltered copies')}; masks filled with 0 dB, the loudest value of a clip, "
        f"{gain('masks at 0 dB instead of unaltered copies')}; masks filled with silence "
        f"{gain('masks at the floor instead of unaltered copies')}; all changes together "
        f"{gain('all four changes instead of unaltered copies')}. In both findings, p is not corrected for the number of tests, "
        f"and with {n_speakers} speakers it cannot be below {least_p(n_speakers):.3f}.",
    ]


def _of_the_best_net(splits) -> str:
    """How the accuracy of the net with the highest published one falls where no test clip chooses its epoch."""
    if splits.empty:
        return ""
    best = splits.loc[splits["published"].idxmax()]
    test, validated, new = (f"{100 * best[name]:.1f}" for name in ("best", "validated", "new_speakers"))
    return (
        f" The study's best net, {best['net']} (published accuracy {100 * best['published']:.1f}), reaches {test} on average if test "
        f"clips choose its epoch, {validated} if validation clips choose it, and {new} for new speakers."
    )


def _beside_published(datasets) -> str:
    tables = [data.published for data in datasets if len(data.published)]
    if not tables:
        return ""
    table = pd.concat(tables)
    table = table[(table["protocol"] == "paper") & table["ours"].notna()]
    if table.empty:
        return ""
    reached = table[table["ours"] >= table["published"].astype(float)]
    same = table["agree"].astype(str).eq("True").sum()
    count = f"{len(reached)} of {len(table)}" if len(reached) else f"None of the {len(table)}"
    named = f" ({', '.join(f'{row.system} {row.model}' for row in reached.itertuples())})" if len(reached) else ""
    profiles = dict.fromkeys(data.made["profile"] for data in datasets)
    return (
        f"{count} scores published for these corpora under `paper` {'is' if len(reached) < 2 else 'are'} reached by "
        f"our networks of profile `{'`, `'.join(profiles)}`{named}.{_hangs_on_the_draw(reached, datasets)} "
        f"{'None' if not same else same} of these runs follows the published protocol exactly: classes, tested clips, folds, "
        "network size or epochs differ, as [results/README.md](results/README.md) lists."
    )


def _hangs_on_the_draw(reached, datasets) -> str:
    """Where a net that reached its published accuracy was trained at its published settings, too: in how many draws it did."""
    said = []
    for row in reached.itertuples():
        for data in datasets:
            if row.system != "spectrogram_cnn" or data.nets.empty:
                continue
            published = (data.nets["published"] - float(row.published)).abs() < 5e-4  # by one of its learning rates
            for net in data.nets[published & (data.nets["net"] == row.model)].itertuples():
                draws = [float(value) for value in net.draws.split()]
                n_reached = sum(round(net.published, 3) <= value for value in draws)
                said.append(f"At its published settings, {row.model} reaches it in {n_reached} of {len(draws)} draws.")
    return "".join(f" {sentence}" for sentence in said)


def about_networks(datasets: list[Dataset]) -> str:
    """Say how large the networks of the table are."""
    if any(data.made["profile"] != "quick" for data in datasets):
        return "All scores come from the profile that is named below."
    return (
        "All networks of this table are smaller, or were trained for fewer epochs, than in profile `paper`, which has the published "
        "settings: on two cores, each fold of one took minutes. The list below and [results/README.md](results/README.md) say what "
        "some of them reach at their published settings."
    )


def about_seeds(datasets: list[Dataset]) -> str:
    """Say whether scores of networks are means over seeds."""
    if not any(len(data.seeds) for data in datasets):
        return "Every network was trained with one seed, so how much its score varies from seed to seed is not known."
    return (
        "A score with ± is the mean over several seeds, ± their standard deviation, and its interval covers speakers and "
        "seeds. For new speakers, all seeds have the same folds. Under the other splits, each seed also draws a new split, which "
        "causes most of the ±. Every other network was trained with one seed. Differences between models are those of the first seed."
    )
