# ---
# jupyter:
#   graph:
#     reads: ["02", "04", "05", "06", "07", "08"]
#     settings: [comparison, ensemble]
#     files: [published, systems]
# ---

# %% [markdown]
# # 11 · All systems, all protocols, one table
#
# **Question.** How good is each system when nothing leaks, how sure can one be of it, and what has to be beaten?
#
# **Reads** the utterance table of 00 and the predictions, audits and costs of notebooks 02 to 08, as far as they were
# run. **Writes** `scores.csv`, `costs.csv`, the tables of this page and all decisions they are made of into
# `results/<dataset>/`. `make rescore` makes them again from these decisions and compares.
#
# **Reproduces** no paper: published figures stand beside ours under the same kind of split. **Run time** on two cores:
# about a minute for the demo corpus. The first time on all of RAVDESS takes some minutes for features, and twenty for
# openSMILE's.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

from ser_utils.evaluation import across, metrics, results
from ser_utils.evaluation import figures as comparison
from ser_utils.evaluation.splits import default_folds, make_folds
from ser_utils.features.audio import load_audio
from ser_utils.features.utterance import RATE_HZ, describe_utterance
from ser_utils.figures import networks, style
from ser_utils.profiles import settings, settings_table
from ser_utils.systems import baselines, crossing, ensemble, known_clips, ready
from ser_utils.workspace import Workspace, read_json
from tools import verify

# %% tags=["parameters"]
dataset = "demo"  # a corpus, several joined by "+", or a path to your own table
profile = "quick"  # smoke, quick or paper
seed = 0
root = ""  # where everything is written; empty: the repository

# %%
workspace = Workspace(dataset, profile, seed, root)
chosen = settings("comparison", profile)
style.set_style()
utterances = workspace.load_table("utterances")
note = "Synthetic speech: nothing here is a finding about people." if dataset == "demo" else ""
print(len(utterances), "utterances,", utterances["speaker"].nunique(), "speakers", note, sep=" ")
settings_table("comparison")

# %% [markdown]
# ## What has to be beaten
#
# If the length or the level of a clip gives its emotion away, a corpus is no test of a network. So five baselines run
# here on the same folds: always one emotion; duration alone; loudness alone; 20 MFCC with their slopes, mean and
# standard deviation over time; and `voice`, 288 numbers about pitch, level, timbre and rhythm. The last two go into a
# support vector machine with scikit-learn's default settings. openSMILE's two feature sets join them where it is
# installed. Scaling is fitted in each fold on what is trained on.

# %%
models = [*chosen["models"], *(chosen["opensmile_models"] if baselines.has_opensmile() else [])]
others = results.list_predictions(workspace).query("system not in ('baseline', 'opensmile')")
# a profile that thins may train some folds of many, "1_of_…": the baselines run on whole sets of folds
used = {(row.protocol, row.folds) for row in others.itertuples() if row.protocol != "paper" and "_of_" not in row.folds}
wanted = results.protocols_for(utterances) | used
for model in models:
    for protocol, folds in sorted(wanted, key=str):
        baselines.evaluate(workspace, utterances, model, protocol, folds)
left_out = [model for model in chosen["opensmile_models"] if model not in models]
print("openSMILE is not installed: without", *left_out) if left_out else print(baselines.OPENSMILE_LICENCE)

# %% [markdown]
# ## A new speaker's other recordings
#
# Voices differ more than emotions do. So every feature is replaced by its rank among all clips of the same speaker. Nobody
# needs a label for that, but several clips of whoever is tested. That is **another condition** than knowing nothing of a new
# speaker. Its models are named `…_adapted`, the audit says `adapted`, and no table has the two in one column. A linear
# discriminant, `…_lda`, joins the support vector machine: its mistakes are others.

# %%
is_several = len(utterances[["corpus", "speaker"]].drop_duplicates()) > 1
new_speakers = [name for name in chosen["new_speakers"] if baselines.features_of(name) in models and is_several]
for model in [name + ending for name in new_speakers for ending in ("", "_adapted")]:
    baselines.evaluate(workspace, utterances, model, "speaker")

# %% [markdown]
# ## All of them together
#
# The system `ensemble` is the mean of what several systems say: its members are named in its toml, with equal weights.
# `new_speaker` knows nothing of a new speaker. `adapted` has those of its members that can know a speaker's unlabelled
# clips, and no network: today's networks cannot. The mean of several answers is less sure than each, so it is raised to a
# power that fits the clips of other folds' speakers, which changes no answer. What leaks into a member leaks into the
# ensemble.

# %%
if is_several:
    named, way = settings("ensemble", profile), default_folds(utterances, "speaker")
    for model, names in named.items():
        members, absent = ensemble.evaluate(workspace, utterances, model, names, "speaker", way)
        print(f"{model}: {len(members)} members; not run: {', '.join(absent) or 'none'}")

# %% [markdown]
# ## The leaderboard
#
# Every number comes from the predictions files alone. UAR, the mean of the recalls of the classes, comes first: chance
# is one over the number of classes. It pools all test predictions. The clips of one voice are not independent, so the
# units of its 95 % interval are *speakers*: Student's t over speakers on the logit scale, with the jackknife's standard
# error. With fewer than five speakers no interval is worth its name, and each speaker's own UAR is shown instead.
# Systems that decide about segments also vote for whole utterances.

# %%
scores = results.gather_scores(workspace)
costs = results.gather_costs(workspace)
epochs = verify.epochs_of(read_json(workspace.results / "provenance.json"))
tables = results.derived_tables(workspace, utterances, scores, epochs)
missing = results.missing_systems(scores)
print("Not run yet (notebook):", ", ".join(missing) if missing else "none")
if "speech_transformer (08)" in missing:
    print("Encoders of random weights have no place in a table: speech_transformer needs `make weights`.")
scores[["system", "model", "protocol", "folds", "level", "uar", "uar_low", "uar_high", "accuracy", "macro_f1"]].round(3)

# %%
n_speakers = utterances["speaker"].nunique()
caveat = f" With {n_speakers} speakers, {metrics.TOO_FEW}." if n_speakers < metrics.FEWEST_SPEAKERS else ""
announced = utterances.attrs.get("announcement", "")
caveat += f" Partial corpus: {announced}." if announced else ""
chance = 1 / utterances["emotion"].nunique()
whole = scores[scores["level"] == "utterance"]
figure = comparison.leaderboard(whole, tables["11_speakers"], chance=chance)
caption = "UAR of whole utterances by protocol, 95 % intervals over speakers; dotted: chance; hollow, with a tick for "
caption += f"each: fewer than {metrics.FEWEST_SPEAKERS} speakers.{caveat}"
style.save_figure(workspace, figure, "11_leaderboard", caption)
plt.show()
print(caveat)

# %% [markdown]
# Read it from left to right: `paper` is what was published, `speaker` what a stranger's voice would get. Whoever stands
# on the dotted line has learned nothing about emotion.
#
# ## What leaks
#
# The audit counts what test shares with everything that was fitted or chosen on. `paper` promises nothing, so all it
# shares is listed. Under the others an entry is a broken promise, except for `…_by_speaker`, whose name says that it
# takes the tested voice's own statistics. *unknown* lists what the code that fitted did not tell: it was not checked,
# which is not the same as clean.

# %%
scores.groupby(["protocol", "system"], sort=False)["leaks"].agg(lambda kinds: " | ".join(sorted(set(kinds)))).unstack(0)

# %% [markdown]
# ## Corpus by corpus
#
# A pooled score can hide that a model works on one corpus and fails on another. Here each model is scored on each corpus
# under the strictest protocol.

# %%
strictest = results.strictest_protocol(scores)
by_corpus = tables["11_corpora"].query("protocol == @strictest")
by_corpus.pivot(index=["system", "model", "folds"], columns="corpus", values="uar").round(3)

# %% [markdown]
# ## How far each score falls
#
# Each protocol tests other clips, so the difference of two pooled scores is also one of clips. Here every model is
# compared with itself on the clips that it tested under both protocols. Intervals are over speakers.

# %%
fall = tables["11_fall"]
stand = [results.stands_for_its_system(row.system, row.model) for row in fall.itertuples()]
if any(stand):
    figure = comparison.falls(fall[stand])
    caption = "UAR lost from each protocol to the strictest one a model knows, on the same clips; 95 % intervals over "
    caption += f"speakers; hollow: fewer than {metrics.FEWEST_SPEAKERS} speakers.{caveat}"
    style.save_figure(workspace, figure, "11_fall", caption)
    plt.show()
fall.round(3)

# %% [markdown]
# `loose` and `strict` are UAR on the same clips, `difference` is what is lost. It still mixes what the voice gives away
# with how many clips each protocol leaves to learn from.
#
# ## Models of one voice
#
# The prototype paper trains a model for each speaker and asks it about the same speaker. It cannot be asked about
# somebody new. So it stands beside the baselines on exactly the clips that all of them tested.

# %%
tables["11_one_voice"].round(3)

# %% [markdown]
# ## What it costs
#
# Parameters, seconds to train all folds, and milliseconds from file to decision. These vary from run to run.

# %%
costs.drop(columns="machine").round(1)

# %% [markdown]
# ## Is one really better than the other?
#
# One or two models stand for each system; their toml files name them. Those that hear nothing but level or length are left
# out. Each pair is compared on the utterances that both decided. The test exchanges two systems' answers speaker by
# speaker. With up to 12 speakers p cannot fall below $2/2^n$; beyond that 9,999 exchanges are drawn. Holm's correction
# multiplies by the number of pairs, so one question with few pairs is asked first: **does anything beat the MFCC
# baseline?**

# %%
decided = results.stand_side_by_side(results.load_decisions(workspace), strictest)
beaten, pairs = tables["11_beaten"], tables["11_significance"]
for what, family in (("against the MFCC baseline", beaten), ("of all with all", pairs)):
    if len(family):
        least = min(1, len(family) * metrics.smallest_p(family["n_speakers"].max()))
        n_sure = (family["p_holm"] < 0.05).sum()
        print(f"{strictest}, {len(family)} pairs {what}: {n_sure} differ at 5 % after correction")
        print(f"  (with so few speakers and so many pairs, the least p possible is {least:.4f})")
beaten.sort_values("difference", ascending=False).round(4)

# %%
gap = results.square(pairs, "difference", list(decided))
marks = results.square(pairs, "p_holm", list(decided), sign=1).map(lambda p: "*" if p < 0.05 else "")
figure = comparison.matrix(gap, label="UAR of row minus column", low=-0.6, high=0.6, diverging=True, marks=marks)
caption = f"Differences of UAR, protocol {strictest}; * p < 0.05 by permutation over speakers, Holm-corrected for "
style.save_figure(workspace, figure, "11_significance", f"{caption}{len(pairs)} pairs.{caveat}")
plt.show()

# %% [markdown]
# ## Women and men
#
# A mean can hide that a system serves one half of the speakers better.

# %%
gender = tables["11_gender"]
genders = sorted(set(utterances["gender"]) - {""})
if genders == ["female", "male"]:
    figure = comparison.by_gender(gender)
    style.save_figure(
        workspace, figure, "11_gender", f"UAR for female and male speakers, protocol {strictest}.{caveat}"
    )
    plt.show()
else:
    print("Nothing to compare: of whom a voice is, this corpus says", " ".join(genders) or "nothing")

# %% [markdown]
# ## Does it know when it does not know?
#
# A system is calibrated if, of the answers it gives with 70 % confidence, 70 % are right. The expected calibration error
# (ECE) is the mean distance from that. A support vector machine has decision values; a sigmoid for each class, fitted
# within the training part, makes them probabilities, and the highest one is the answer. SigWavNet ends in a softmax of
# averages of normalised values, which are never far apart: it cannot be sure.

# %%
figure = comparison.calibration(decided)
style.save_figure(workspace, figure, "11_calibration", f"Confidence against share right, protocol {strictest}.")
plt.show()
tables["11_calibration"].set_index("label").round(3).T

# %% [markdown]
# ## In noise
#
# Trained on clean speech, tested on the same clips with white noise. What holds its UAR relies on what noise leaves.
# Done for the baselines; the networks would have to be asked again, fold by fold, for every noisy clip.

# %%
folds = make_folds(utterances, strictest, seed=seed)
features = {m: baselines.load_features(workspace.folder("features"), utterances, m) for m in models}
noisy = {}
for model in [m for m in chosen["noise_models"] if m in models]:
    for snr_db in [None, *chosen["snr_db"]]:
        added = baselines.load_features(workspace.folder("features"), utterances, model, snr_db=snr_db)
        heard, _ = baselines.cross_validate(features[model], utterances, folds, model=model, test_features=added)
        level = "clean" if snr_db is None else snr_db  # 0 dB is a level, too
        noisy[model, level] = metrics.unweighted_average_recall(heard["emotion"], heard["prediction"])
noise = pd.Series(noisy).unstack()[["clean", *chosen["snr_db"]]]

# %%
figure = comparison.noise(noise)
style.save_figure(workspace, figure, "11_noise", f"Baselines under added white noise, protocol {strictest}.")
plt.show()
noise.round(3)

# %% [markdown]
# ## How many clips of a new speaker does it take?
#
# A model is given so many clips of a new speaker, without labels, and asked about that speaker's other clips. They
# are drawn at random; or they are all neutral (or calm), which the model is told or not; or they are lopsided: four fifths
# express one emotion, and nobody says so. The model is one support vector machine a set of features, trained for that
# number: every training speaker was known through so many clips, too, and through neutral ones where it is told. Intervals
# are over draws and speakers.

# %%
curve = pd.DataFrame()
if is_several:
    sets = {name: features[name] for name in chosen["known_features"] if name in models}
    print("features:", *sets)
    counts = {"counts": chosen["known_clips"], "draws": chosen["known_draws"], "seed": seed}
    curve = known_clips.adaptation_curve(sets, utterances, make_folds(utterances, "speaker", seed=seed), **counts)
    figure = comparison.known_clips(curve)
    caption = (
        f"UAR on new speakers against the unlabelled clips known of each, features {' + '.join(sets)}; dotted: none. "
    )
    caption += f"95 % intervals over speakers and {chosen['known_draws']} draws.{caveat}"
    style.save_figure(workspace, figure, "11_known_clips", caption)
    plt.show()
    absent = sorted({*known_clips.CHOICES} - {*curve["known"]})
    print("left out, since some speaker has too few such clips:", ", ".join(absent) or "nothing")
curve.round(3)

# %%
needed = known_clips.clips_needed(curve) if is_several else None
print("Random clips with which it is better than with none, whatever their number beyond:", needed or "no number tried")

# %% [markdown]
# ## The best one's confusions
#
# The highest UAR under the strictest protocol, picked after the fact on the same test clips, which flatters it.

# %%
uar = {
    label: metrics.unweighted_average_recall(table["emotion"], table["prediction"]) for label, table in decided.items()
}
best = max(uar, key=uar.get)
truth, answer = decided[best]["emotion"], decided[best]["prediction"]
figure = networks.confusion_matrix(truth, answer, title=best)
style.save_figure(workspace, figure, "11_confusion", f"Confusions of {best}, protocol {strictest}.")
plt.show()
metrics.per_class(truth, answer).round(3)

# %% [markdown]
# ## Elsewhere
#
# Does a model work where it was not trained? Several corpora are crossed: trained on each one, on all but one, and on all of
# them, and tested on each, on the emotions that all of them have. With a single corpus women and men take the corpora's
# place.

# %%
several = utterances["corpus"].nunique() > 1
by_gender, crossed, worn = pd.DataFrame(), {}, {}
if not several and genders == ["female", "male"]:
    by_gender, common = baselines.across_domains(
        features["mfcc"], utterances, utterances["gender"], lambda rows: make_folds(rows, "speaker", seed=seed)
    )
    figure = comparison.matrix(by_gender, label="UAR", marks=common.map("{} classes".format))
    style.save_figure(workspace, figure, "11_across", "MFCC baseline across genders; UAR of common classes.")
    plt.show()
elif not several:
    print("One corpus that does not say who is a woman and who a man: nothing to cross.")

# %% [markdown]
# Everything here is speaker-independent. *Normalised by corpus* takes from every corpus its own mean and deviation of each
# feature: no label is used, but recordings of the tested corpus have to be there. The deep CNN of notebook 05 joins the
# baselines, where 05 was run on these corpora.

# %%
if several:
    shared = across.keep_shared(utterances)
    is_shared = utterances["utterance_id"].isin(shared["utterance_id"]).to_numpy()
    values = {model: features[model][is_shared] for model in chosen["crossed_models"] if model in features}
    for model, rows in values.items():
        crossed |= crossing.cross_features(rows, shared, model, seed=seed)
        worn |= crossing.wear_other_recordings(rows, shared, model, seed=seed)
    if workspace.has_table("crossed_network"):
        crossed |= crossing.load_crossed(workspace, "crossed_network", made_by="05")
    emotions = ", ".join(style.in_order(shared["emotion"]))
    print(f"{len(shared)} of {len(utterances)} utterances, of emotions that all corpora have: {emotions}")

# %%
carried = across.score_crossings(crossed)
if several:
    figure = comparison.crossings(carried)
    caption = "UAR of models trained on the corpora at the left, tested on those below, 95 % intervals over speakers; framed: "
    caption += (
        f"training hears other speakers of the tested corpus. Chance is {1 / shared['emotion'].nunique():.2f}.{caveat}"
    )
    style.save_figure(workspace, figure, "11_across", caption)
    plt.show()

# %% [markdown]
# ### Language or recording?
#
# What is lost has two parts that add up. *Recording* is what normalising by corpus gives back: level, microphone, room,
# and whatever else moves a whole corpus. *Rest* is what stays lost: language, acting, and what the actors were asked for.
# These cannot be told apart where no two corpora share a language. As a check, a corpus's own models are tested on its own
# clips in the statistics of the other corpus (*worn*): there the language stays, and only the recording changes.

# %%
lost = across.measure_losses(crossed, worn)
if several:
    figure = comparison.losses(lost, chance=1 / shared["emotion"].nunique())
    caption = "UAR on each corpus (right of the arrow) of its own models, and of models of another corpus (left of it)."
    style.save_figure(workspace, figure, "11_lost", f"{caption}{caveat}")
    plt.show()
lost.round(3)

# %% [markdown]
# ### Which corpus is it?
#
# A warning: the same features tell the corpus itself, of speakers that training did not hear. A model that is trained on
# several corpora can use that, as soon as they differ in how often they have each emotion.

# %%
told = pd.DataFrame(columns=["features", "normalised", "uar", "chance"])
if several:
    folds = make_folds(shared, "speaker", folds="5_speakers", seed=seed)
    hearing = {m: features[m][is_shared] for m in ("duration", "loudness", *chosen["crossed_models"]) if m in features}
    told = pd.concat([crossing.tell_corpora(rows, shared, folds).assign(features=m) for m, rows in hearing.items()])
told.round(3)

# %% [markdown]
# ### Does more help?
#
# Trained on all corpora beside trained on the tested one alone, on the same clips. `difference` is in UAR, and positive
# where the other corpora help; Holm's correction counts all rows.

# %%
adding = across.measure_adding(crossed)
adding.round(3)

# %% [markdown]
# ## Do they fail together?
#
# If two systems err on the same clips (κ near 1) they have learned the same thing, and joining them gains little. Clips
# that all get wrong are worth listening to. One or two models stand for each system.

# %%
wrong = results.errors(decided)
kappa = results.failing_together(wrong)
figure = comparison.matrix(kappa, label="Cohen's κ of errors", low=-1, high=1, diverging=True)
style.save_figure(workspace, figure, "11_failing_together", f"Agreement of errors, protocol {strictest}.")
plt.show()

# %%
independent = float(np.prod(wrong.mean()))
print(f"All {wrong.shape[1]} wrong on {wrong.all(axis=1).mean():.1%} of clips; {independent:.1%} if independent.")
tables["11_hardest"].head(10)

# %% [markdown]
# The ensemble's own members, under the same protocol: how much their errors have in common, and how often the answer is right
# where so many of them gave it.

# %%
together = decided.get("ensemble · new speaker")
if together is not None:
    members, _ = ensemble.find_members(workspace, named["new_speaker"], "speaker", way)
    display(results.failing_together(results.errors(members | {"together": together})).round(2))
    display(ensemble.agreement(members, together).round(3))

# %% [markdown]
# ## Beside what was published
#
# The same model under the same kind of split, in our profile. `agree` says whether classes, clips tested, folds, size of
# the network (within 1 %) and epochs are the same, too: only then is the protocol the same. Where `ours` is empty, the
# model was not run. Published figures of other corpora are in `ser_utils/evaluation/published.csv`.

# %%
published = tables["11_published"]
if published["ours"].notna().any():
    figure = comparison.published(published)
    caption = f"Published figures, of whole corpora, and ours under the same kind of split.{caveat}"
    style.save_figure(workspace, figure, "11_published", caption)
    plt.show()
published.round(3)

# %% [markdown]
# ## Again with other seeds
#
# Other seeds of this dataset and profile that were run count as repeated runs: mean and spread of UAR, and an interval that
# holds both speakers and seeds.

# %%
seeds = tables["11_seeds"]
seeds.round(3) if len(seeds) else print("Only one seed so far: make reproduce SEED=1 adds another.")

# %% [markdown]
# ## A model to use at once
#
# The 288 numbers and one logistic regression for each number of known clips make a model of some ten kilobytes. It needs no
# network and no openSMILE. `make predict FILE=my.wav` asks it; `FILES=folder` shows it other recordings of the same voice.
# It ships where the licence of the corpus lets models be shared.

# %%
if is_several:
    names = list(describe_utterance(*load_audio(utterances["path"].iloc[0], RATE_HZ)))
    model = ready.learn_model(utterances, features["voice"], names, dataset, seed)
    path = ready.save_model(model, ready.model_folder(workspace))
    print(path.name, f"{path.with_suffix('.npz').stat().st_size / 1000:.0f} kB")
    display(pd.DataFrame(model.facts["tested"]).query("known == 'random'").drop(columns="known").round(3))

# %% [markdown]
# ## Saved

# %%
tables["11_known_clips"] = curve
tables["11_noise"] = noise.rename_axis("model").reset_index()
tables["11_across"] = carried if several else by_gender.reset_index() if len(by_gender) else by_gender
tables |= {"11_lost": lost, "11_told": told, "11_adding": adding}
workspace.record("11", utterances, chosen)
verify.save_results(workspace, scores=scores, costs=costs, **tables)
verify.keep_decisions(workspace, utterances)
print(f"{len(scores)} rows in {workspace.results / 'scores.csv'}; README's table comes from it (make tables)")
