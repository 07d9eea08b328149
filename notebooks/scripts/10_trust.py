# ---
# jupyter:
#   graph:
#     reads: ["09"]
#     settings: [explanation, prototype_classifier, feature_network, sigwavnet, speech_transformer]
#     files: [weights]
# ---

# %% [markdown]
# # 10 · Which explanations can be trusted?
#
# **Question.** Attribution maps are easy to make and easy to believe. Which methods find the relevant cue where it is known?
# Which change when the weights or labels of the network change? Which point at what the network really uses? And are
# prototypes better by the same standards?
#
# **Reads** the networks of 02, 05, 07 and 08 and the maps of 09; makes a planted corpus of its own. **Writes** the tables
# `explanations` and `prototype_checks`, which are `10_verdicts.csv` (method × network × check) and `10_prototypes.csv` in
# the results, and figures.
#
# **Run time** on two cores, profile `quick`: three minutes on the demo corpus, besides the notebooks it reads.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

from ser_utils.corpora.loading import common_rate
from ser_utils.evaluation.metrics import unweighted_average_recall
from ser_utils.evaluation.splits import HOP_MS, SEGMENT_MS
from ser_utils.explanation import attribution, faithfulness
from ser_utils.explanation import figures as explanations
from ser_utils.features.audio import load_audio
from ser_utils.features.spectral import split_segments
from ser_utils.features.store import load_store
from ser_utils.figures import style
from ser_utils.names import STAND_INS
from ser_utils.profiles import settings, settings_table
from ser_utils.systems import explained
from ser_utils.systems.prototype import checks as prototypes
from ser_utils.systems.prototype.analysis import prototype_sounds, select_prototypes
from ser_utils.systems.prototype.classifier import prototype_scores
from ser_utils.workspace import Workspace, write_csv

# %% tags=["parameters"]
dataset = "demo"  # a corpus, several joined by "+", or a path to your own table
profile = "quick"  # smoke, quick or paper
seed = 0
root = ""  # where everything is written; empty: the repository

# %%
workspace = Workspace(dataset, profile, seed, root)
chosen = settings("explanation", profile, dataset)
utterances = workspace.load_table("utterances")
paths = utterances.set_index("utterance_id")["path"]
bootstrap = {"n_resamples": chosen["resamples"], "seed": seed}
style.set_style()
settings_table("explanation")

# %% [markdown]
# ## Prototypes
#
# ### Do they stand for something real?
#
# A prototype is a point that training was free to move. The real segments around it show what it stands for. We use the
# classifiers of 02 under protocol `utterance`: those of a few speakers, and that of all speakers.

# %%
opened = explained.open_prototypes(workspace, utterances, chosen["prototype_models"])
shown, first = next(iter(opened.items()))
near = workspace.load_table("prototype_neighbours", made_by="02").query("protocol == 'utterance' and model == @shown")
best = select_prototypes(prototype_scores(first.classifier.fc_weights.round(2)), first.classes, top=1)
best = style.sort_by_emotion(best).merge(near, on="prototype")
best["place"] = (best["nearest_start_ms"] // HOP_MS).astype(int)
segments, rate = load_store(workspace.folder("features") / "segments"), common_rate(utterances)

# %%
decoded = first.coder.decode(first.classifier.prototypes[best["prototype"]])
real = np.stack([segments.of(row.nearest_utterance_id)[row.place] for row in best.itertuples()])
titles = [f"{row.emotion}\n{row.score:.0f} %, {row.nearest_similarity:.2f} alike" for row in best.itertuples()]
figure = explanations.neighbours(decoded, real, titles, rate)
caption = f"The strongest prototype of each emotion, {shown}, decoded, and the real segment nearest to it."
style.save_figure(workspace, figure, "10_prototype_neighbours", caption)
plt.show()

# %% [markdown]
# You hear the prototype four times in a row, then a pause, then the real 100 ms four times.

# %%
sounds = prototype_sounds(decoded, rate, length=round(rate * SEGMENT_MS / 1000), seed=seed)
for row, sound in zip(best.itertuples(), sounds, strict=True):
    signal, _ = load_audio(paths[row.nearest_utterance_id], rate)
    nearest = split_segments(signal, rate, segment_ms=SEGMENT_MS, hop_ms=HOP_MS)[row.place]
    print(f"{row.emotion}: prototype {row.prototype}, then {row.nearest_utterance_id}, {row.nearest_start_ms} ms")
    display(prototypes.one_then_other(sound, nearest, rate))

# %% [markdown]
# ### What does it cost if every prototype is a real segment?
#
# Projection puts every prototype on its nearest training segment, so that "sounds like this prototype" becomes "sounds
# like this recording". **Purity** is the share of a prototype's ten nearest training segments that are of the emotion it
# speaks for. **Twins** are here prototypes whose similarities to the segments rise and fall with those of another prototype.

# %%
of_prototypes = pd.DataFrame({name: prototypes.judge(one) for name, one in opened.items()}).T
of_prototypes.round(3)

# %% [markdown]
# `median_move` is a share of the median distance between prototypes. If it is near 0, prototypes *are* training segments, and
# projection costs nothing. `effective_number` tells how many independent prototypes would say as much as all of them.
#
# ### How many are needed?
#
# We remove prototypes one after another: in one run the strongest of every emotion first, in another the weakest first, and
# in twenty more runs in random order. The band holds 90 % of the random runs.

# %%
curves = {name: prototypes.removals(model, seed=seed) for name, model in opened.items()}
figure = explanations.prototype_removal(curves, chance=1 / utterances["emotion"].nunique())
caption = "UAR on held-out segments as prototypes are removed, by score and at random; dotted: chance."
style.save_figure(workspace, figure, "10_prototype_removal", caption)
plt.show()
areas = {name: {f"area_{order}": np.mean(uar) for order, (_, uar) in orders.items()} for name, orders in curves.items()}
of_prototypes = of_prototypes.join(pd.DataFrame(areas).T)

# %% [markdown]
# If the score measured importance, "strongest first" would fall below the band and "weakest first" would stay above it.
# If not, a high score does not mean that the classifier needs the prototype.
#
# ### Does another training find the same ones?
#
# We train the classifier again with another seed, on the same segments and with the same encoder. The prototypes of both
# trainings are paired one to one, so that their similarities to the training segments correlate as much as possible.

# %%
agreed = prototypes.found_again(workspace, shown, first, seed=seed)
of_prototypes.loc[shown, [f"seeds_{name}" for name in agreed]] = list(agreed.values())
workspace.save_table(of_prototypes.reset_index(names="model"), "prototype_checks")
write_csv(workspace.results / "10_prototypes.csv", of_prototypes.reset_index(names="model"))
pd.Series(agreed).round(2)

# %% [markdown]
# Compare `correlation` with `by_chance`, which was computed in the same way after the coordinates were shuffled among the
# prototypes (mean of five draws). `same_decision` is the share of segments on which the two classifiers agree. They may agree
# although their prototypes differ. Then they give different reasons for the same answer.
#
# ## Maps
#
# ### Where the answer is known
#
# In the **planted corpus**, synthetic voices speak with emotions, but the label does not depend on them. Only one thing decides
# the label: a patch of noise, the *cue*, 180 ms long, in a frequency band that belongs to the class. Two decoys are as loud and
# as long, but lie in bands that belong to no class. A good explanation of a network trained on this corpus points at the cue and
# not at the decoys.

# %%
planted, region_of, predictions = explained.planted_network(workspace, chosen)
uar = unweighted_average_recall(predictions["emotion"], predictions["prediction"])
print(f"UAR on held-out clips {uar:.2f}, chance {1 / 7:.2f}")

# %% [markdown]
# An explanation of a network that has not learned its task says nothing. A UAR near 1 means that the network uses the cue, so we
# know what an explanation has to find.

# %%
planted_maps, _ = attribution.all_maps([planted], seed=seed)
clip = planted.clips[0]
pictures = {method: values[0] for method, values in planted_maps[0][0].items() if method != "random"}
figure = explanations.maps_over(clip.x[0], pictures, region=region_of(clip.utterance, clip.x.shape[1]))
caption = "One planted recording and what each method says of it; the cue that decides is outlined."
style.save_figure(workspace, figure, "10_planted_maps", caption)
plt.show()

# %% [markdown]
# `localisation` is the probability that a point inside the cue has a higher value than a point outside (0.5 for a random map).
# `cue_over_decoys` asks a harder question: does the cue have higher values than the two decoys, which are as loud (1/2 by
# chance)?

# %%
found = faithfulness.summarise_cues(faithfulness.found_cues([planted], planted_maps, region_of), **bootstrap)
figure = explanations.score_bars(found, "localisation", "low", "high", chance=0.5, label="localisation (ROC AUC)")
caption = f"How well each method finds the planted cue, {len(planted.clips)} held-out recordings; bars: 95 %."
style.save_figure(workspace, figure, "10_localisation", caption)
plt.show()
found.sort_values("localisation", ascending=False).round(3)

# %% [markdown]
# Loudness points at the cue *and* at the decoys, so `cue_over_decoys` separates it from methods that read the network. A method
# finds the cue if it localises the cue better than loudness does on the same recordings (`localisation_less_energy`, with its
# 95 % interval).
#
# ### The same checks for every network
#
# From here on, the planted network and the networks of 02, 05, 07 and 08 go through the same checks, on the recordings and maps
# of notebook 09. Profile `smoke` leaves out those of 05 (`left_out`).

# %%
networks = explained.open_networks(workspace, utterances, chosen, without=chosen["left_out"])
maps = attribution.load_maps(workspace.folder("explanations"), networks)
networks, maps = [planted, *networks], [planted_maps[0], *maps]

# %% [markdown]
# ### Does the map see the network?
#
# We shuffle the weights within each layer, either layer after layer from the output down (cascading), or in one layer alone
# (independent). A map that stays the same explains the input, not the network (Adebayo et al. 2018). So does a map whose signs
# are only reversed, so the verdict uses the absolute value of the correlation. The verdict rests on the maps with all layers
# shuffled; single layers are tested on fewer recordings.

# %%
likeness = pd.concat(
    [
        faithfulness.likeness_when_shuffled(
            network, of_network, few=chosen["sanity_clips"], most_layers=chosen["shuffled_layers"], seed=seed
        )
        for network, of_network in zip(networks, maps, strict=True)
    ],
    ignore_index=True,
)
for value, title in (("spearman", "rank correlation"), ("ssim", "SSIM")):
    figure = explanations.cascade(likeness[likeness["model"] != explained.WAVEFORM], value=value)
    caption = f"Likeness ({title}) of maps to the trained network's as layers are shuffled."
    style.save_figure(workspace, figure, f"10_randomised_{value}", caption)
    plt.show()

# %% [markdown]
# ### Labels at random
#
# We train the same networks again on random labels. They can memorise the recordings but not learn the task, so their maps
# should differ. Training goes on until nine tenths of the recordings are memorised. If a network does not get there, the check
# is not made. The waveform network and the prototypes are not trained in this way, so the check is not shown for them.

# %%
mixed, learned = [], {}
for number, (network, of_network) in enumerate(zip(networks, maps, strict=True)):
    if network.material is None or network.name in learned:
        continue
    path = workspace.folder("models") / f"shuffled_labels-{number}.keras"
    fitted = faithfulness.fit_shuffled_labels(
        path,
        network.subject.model,
        network.material,
        seed=seed,
        epochs=chosen["shuffled_epochs"],
        most_clips=chosen["shuffled_clips"],
    )
    learned[network.name] = fitted.history["accuracy"].iloc[-1]
    print(f"{network.name}: {learned[network.name]:.0%} learned by heart in {len(fitted.history)} passes")
    if learned[network.name] >= faithfulness.LEARNED:
        other = {"labels": fitted.model.get_weights()}
        table = faithfulness.sanity(network.subject, other, network.clips, of_network, seed=seed)
        mixed.append(table.assign(model=network.name))

# %%
shuffled = pd.concat([pd.DataFrame(columns=["model", "method", "likeness", "spearman"]), *mixed])
shuffled.astype({"spearman": float}).pivot_table(index="method", columns="model", values="spearman").round(2)

# %% [markdown]
# ### Does it stay where the prediction stays?
#
# We add noise with a tenth of the input's standard deviation, and halve it until the prediction is unchanged. If the map still
# changes, it says more about the noise than about the network. The maps with and without noise should be more alike than the maps
# of two different recordings (`null`).

# %%
stable = pd.concat(
    [
        faithfulness.stability(network, of_network, seed=seed)
        for network, of_network in zip(networks, maps, strict=True)
        if not network.is_slow
    ]
)
stable.groupby(["method", "model"], sort=False)[["stability", "null"]].mean().unstack("model").round(2)

# %% [markdown]
# ### Does the network rely on what the map says?
#
# We remove points of the input, the most important first (deletion), or insert them in the same order (insertion). The faster
# the score falls or rises, the more faithful is the map. It matters what replaces a removed point. We use two fills: **absence**,
# from which occlusion and integrated gradients also start, so it may favour them, and **other speech** at the same level, which
# favours no method. A method has to beat chance with both fills. **Comprehensiveness** is how much the score falls if the most
# important fifth is removed. **Sufficiency** is how much it falls if only this fifth is left. **Sparseness** is the Gini index of
# the map.

# %%
removed = faithfulness.removals_of(networks, maps)
for kind in ("deletion", "insertion"):
    figure = explanations.removal_curves(removed[removed["fill"] == "absence"], kind)
    caption = f"Score of the class under {kind}, most important points first; absence fills; mean over recordings."
    style.save_figure(workspace, figure, f"10_{kind}", caption)
    plt.show()

# %%
summary = pd.concat(
    {name: faithfulness.summarise_removals(rows, **bootstrap) for name, rows in removed.groupby("model", sort=False)},
    names=["model", "method"],
)
by_fill = removed.groupby(["model", "method", "fill"], sort=False)[
    ["deletion", "deletion_p", "insertion", "insertion_p"]
]
by_fill.mean().unstack("fill").round(2)

# %% [markdown]
# The table shows the areas under the curves in log-odds. Columns with `_p` use the probability instead, as RISE does.

# %%
shown = [
    "clips",
    "deletion_less_random_low",
    "deletion_less_random_high",
    "deletion_less_energy_high",
    "insertion_less_random_low",
    "comprehensiveness",
    "sufficiency",
    "sparseness",
]
summary[shown].round(2)

# %% [markdown]
# `…_less_random` is the area minus the area of a random order on the same recording, with a 95 % interval over recordings. It is
# shown for the fill that is less favourable. For deletion it should be below 0, for insertion above 0. `…_less_energy` is the same
# comparison with plain loudness.
#
# ### Do they sum up?
#
# Integrated gradients should sum to the change of the score from absence to the recording. The table shows how far they are from
# it after 50 equal steps, which tells how exactly they were computed. It is not part of the verdict, because no other method
# makes this claim.

# %%
gaps = faithfulness.gaps_at_fixed_steps([network for network in networks if not network.is_slow])
(100 * gaps.groupby("model", sort=False)["gap"].agg(["median", "max"])).round(2).add_suffix(" (%)")

# %% [markdown]
# ## A verdict per method
#
# The rules were fixed before the verdicts, and they are the same for every method on every network. The verdict **trust** needs
# every check to be passed. A method is **not to be trusted** on a network if it ignores the weights, or if the score falls no
# faster than in random order. If one of these two checks was not shown, the verdict is **not shown**. In all other cases it is
# **with care**. A check that was not made, or that rests on fewer than five recordings, counts as not shown, so leaving a check
# out never makes a method trusted. Checks marked `planted` were made on the planted corpus, and count for every network. They
# rest on one network that was trained once; with another training, some of them come out differently.

# %%
faithfulness.RULES

# %%
checks = summary.copy()
for table, column, name in (
    (likeness[likeness["decides"]], "likeness", "likeness_randomised"),
    (shuffled, "likeness", "likeness_shuffled"),
    (stable, "stability", "stability"),
):
    of_clips = faithfulness.of_enough_clips(table.rename(columns={column: name}), name)
    checks = checks.join(of_clips.astype(float))
less_null = stable.assign(
    clip=stable.groupby(["model", "method"]).cumcount(), stability_less_null=stable["stability"] - stable["null"]
)
ends = less_null.groupby(["model", "method"], sort=False)["stability_less_null"].agg(
    lambda values: faithfulness.interval(values, **bootstrap)[1]
)
checks["stability_less_null_low"] = ends
verdicts = faithfulness.verdicts(checks, found)

# %%
figure = explanations.verdict_table(verdicts)
counts = (
    checks[["clips", "likeness_randomised_n", "likeness_shuffled_n", "stability_n"]].groupby("model", sort=False).max()
)
resting = counts.fillna(0).astype(int).astype(str).agg(" / ".join, axis=1)
style.save_figure(
    workspace,
    figure,
    "10_verdicts",
    "Verdict of each method on each network, and how many of all checks it passes. Recordings it rests on, "
    f"explained / shuffled weights / shuffled labels / noise: {'; '.join(resting.index + ' ' + resting)}.",
)
plt.show()

# %%
per_method = pd.crosstab(verdicts.index.get_level_values("method"), verdicts["verdict"])
per_method = per_method.reindex(columns=list(faithfulness.VERDICTS), fill_value=0)
per_method.sort_values(list(faithfulness.VERDICTS[:2]), ascending=False)

# %%
made = verdicts[faithfulness.RULES["check"]]
n_made, n_missing, n_intervals = faithfulness.count_checks(verdicts)
print(
    f"{n_made} checks were made, {n_missing} were not. {n_intervals} tests hold an interval against 0; at the 5 % level, about "
    f"{round(0.025 * n_intervals)} of them would pass by chance alone: no adjustment is made, so a single check passed says "
    "little, and the verdict asks for all of them."
)

# %% [markdown]
# `energy` and `random` know nothing of the network. They cannot follow its weights, so they can never be trusted. Any other
# check that they pass says little by itself:

# %%
for method in attribution.BASELINES:
    rows = made.xs(method, level="method")
    passes = [
        f"{check} ({rows[check].eq(True).sum()} of {rows[check].notna().sum()} networks)"
        for check in rows
        if rows[check].eq(True).any()
    ]
    print(f"{method} passes: {', '.join(passes) or 'nothing'}")

# %% [markdown]
# What fails, and what was not shown, in words:

# %%
words = verdicts["failed"].where(verdicts["missing"] == "", verdicts["failed"] + " | not shown: " + verdicts["missing"])
words.unstack("model").fillna("")

# %% [markdown]
# ## Saved

# %%
table = checks.join(found[["localisation", "cue_over_decoys"]], on="method").join(verdicts).reset_index()
workspace.save_table(table.astype({name: "boolean" for name in faithfulness.RULES["check"]}), "explanations")
meant = table[~table["model"].str.startswith(STAND_INS)]  # an encoder that was never trained has no place in results
write_csv(workspace.results / "10_verdicts.csv", meant)
workspace.record("10", utterances, chosen)
believed = per_method.drop(index=list(attribution.BASELINES))[["trust", "with care"]].sum(axis=1)
mostly = believed.idxmax().replace("_", " ") if believed.any() else "none"
print(f"{len(table)} verdicts in 10_verdicts.csv. Trusted, or trusted with care, on the most networks: {mostly}.")

# %% [markdown]
# **What we learned** is in the table of verdicts. A method that passes on one kind of network may fail on another. If several
# methods tie, the line above names the first of them. No other notebook reads these tables. When `make predict` asks the
# networks of notebook 05, it uses occlusion, which has the verdict *trust* on none of the networks that we checked. Its answer
# says that it is only a hint.
