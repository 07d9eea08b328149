# ---
# jupyter:
#   graph:
#     reads: ["02", "04", "05", "06", "07", "08"]
#     settings: [comparison, ensemble]
#     files: [published, systems, seeds]
# ---

# %% [markdown]
# # 11 · All systems, all protocols, one table
#
# **Question.** How good is each system when nothing leaks, how certain is that, and which baselines does it beat?
#
# **Reads** the utterance table of 00 and the predictions, audits and costs of notebooks 02 to 08, as far as they were run.
# **Writes** `scores.csv`, `costs.csv`, the tables of this page and all decisions behind them to `results/<dataset>/`.
# `make rescore` computes them again from these decisions and compares.
#
# **Reproduces** no paper. It compares published scores with ours under the same kind of split. **Run time** on two cores:
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
# ## Baselines
#
# If the length or the level of a clip gives its emotion away, a corpus is not a good test of a network. So five baselines run
# here on the same folds: always one emotion; duration alone; loudness alone; the mean and standard deviation over time of 20
# MFCC and their slopes; and `voice`, 288 numbers about pitch, level, timbre and rhythm. All but the first use a support
# vector machine with scikit-learn's default settings. If openSMILE is installed, its two feature sets are added. In each
# fold, scaling and classifier are fitted on the training and validation clips, because nothing is chosen on validation.

# %%
models = [*chosen["models"], *(chosen["opensmile_models"] if baselines.has_opensmile() else [])]
others = results.list_predictions(workspace).query("system not in ('baseline', 'opensmile')")
# a profile may train only some of the folds, "1_of_…"; the baselines run on complete sets of folds
used = {(row.protocol, row.folds) for row in others.itertuples() if row.protocol != "paper" and "_of_" not in row.folds}
wanted = results.protocols_for(utterances) | used
for model in models:
    for protocol, folds in sorted(wanted, key=str):
        baselines.evaluate(workspace, utterances, model, protocol, folds)
left_out = [model for model in chosen["opensmile_models"] if model not in models]
print("openSMILE is not installed; left out:", *left_out) if left_out else print(baselines.OPENSMILE_LICENCE)

# %% [markdown]
# ## A new speaker's other recordings
#
# Features depend on the voice as well as on the emotion. So we replace every feature by its rank among all clips of the same
# speaker. This needs no labels, but it needs several clips of the tested speaker. That is **a different condition** from
# knowing nothing of a new speaker: its models are named `…_adapted`, the audit says `adapted`, and no comparison mixes both.
# We also add a linear discriminant, `…_lda`, as a second classifier on the same features.
#
# These features sum up a clip before anything is learned. `lld` starts from openSMILE's 65 low-level descriptors every 10 ms,
# with their slopes, and each fold learns a Fisher vector: the frames of the training clips are described by 16 Gaussians, and a
# clip's vector says how its own frames differ from each of them. For `lld_adapted`, the frames have the speaker's mean and
# deviation taken off, and the vectors the speaker's mean.

# %%
is_several = len(utterances[["corpus", "speaker"]].drop_duplicates()) > 1
new_speakers = [name for name in chosen["new_speakers"] if baselines.can_run(name) and is_several]
for model in [name + ending for name in new_speakers for ending in ("", "_adapted")]:
    baselines.evaluate(workspace, utterances, model, "speaker")

# %% [markdown]
# ## An ensemble of all systems
#
# The system `ensemble` asks several systems at once; its toml file names the members. `new_speaker` knows nothing of a new
# speaker. `adapted` contains the members that can use a speaker's unlabelled clips; none of the member networks can. Each member $m$
# has a weight $w_m$, and $p(\text{emotion}) \propto \prod_m p_m(\text{emotion})^{w_m}$. The weights of a fold are fitted on the
# speakers of the other folds, and so is how much they may differ: they stay nearly equal unless other weights are better by
# more than one standard error on speakers left out. The members' answers for these speakers come from models that had learned
# from the tested speakers, so the tested labels have an indirect influence. A leak in a member is also a leak in the ensemble.

# %%
if is_several:
    named, way = settings("ensemble", profile), default_folds(utterances, "speaker")
    for model, names in named.items():
        members, absent = ensemble.evaluate_ensemble(workspace, utterances, model, names, "speaker", way)
        print(f"{model}: {len(members)} members; not run: {', '.join(absent) or 'none'}")
        if workspace.has_table(f"ensemble_{model}_weights"):
            display(
                workspace.load_table(f"ensemble_{model}_weights", "11")
                .set_index("fold")
                .mean()
                .round(2)
                .to_frame("weight")
            )

# %% [markdown]
# ## The leaderboard
#
# All scores are computed from the saved predictions. The main score is UAR, the mean recall of the classes, over all test
# predictions together; chance is one over the number of classes. Clips of one voice are not independent, so the units of the
# 95 % interval are *speakers*: Student's t over speakers on the logit scale, with the jackknife's standard error. With fewer
# than five speakers, such an interval is not reliable, and we show the UAR of each speaker instead. For systems that classify
# segments, we also average their segments to one decision per utterance.

# %%
scores = results.gather_scores(workspace)
costs = results.gather_costs(workspace)
epochs = verify.epochs_of(read_json(workspace.results / "provenance.json"))
tables = results.derived_tables(workspace, utterances, scores, epochs)
missing = results.missing_systems(scores)
print("Not run yet (notebook):", ", ".join(missing) if missing else "none")
if "speech_transformer (08)" in missing:
    print("Encoders with random weights are not in the tables: speech_transformer needs `make weights`.")
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
# Read the figure from left to right: `paper` is the published kind of split, and `speaker` shows the score on new voices. A
# model on the dotted line is at chance: it has learned nothing about emotion.
#
# ## What leaks
#
# The audit counts what the test clips share with the data that something was fitted or chosen on. `paper` keeps nothing apart,
# so everything that it shares is listed. Under the other protocols, an entry is something that the protocol does not allow.
# Two entries are intended, and the names of the models say so: `…_by_speaker` uses the statistics of the tested voice, and
# `…_adapted` uses its unlabelled clips. *selection on test* outside `paper` means that we chose a setting by looking at scores
# of test clips of this corpus; no code can see that, so the systems' toml files declare it (`chosen_on_test`) and
# `notebooks/choices.md` says what and when. *unknown* lists what the training code did not report. It was not checked, which
# is not the same as clean.

# %%
scores.groupby(["protocol", "system"], sort=False)["leaks"].agg(lambda kinds: " | ".join(sorted(set(kinds)))).unstack(0)

# %% [markdown]
# ## Corpus by corpus
#
# A score over several corpora can hide that a model works on one corpus and fails on another. This table scores each model on
# each corpus under the strictest protocol.

# %%
strictest = results.strictest_protocol(scores)
by_corpus = tables["11_corpora"].query("protocol == @strictest")
by_corpus.pivot(index=["system", "model", "folds"], columns="corpus", values="uar").round(3)

# %% [markdown]
# ## How far each score falls
#
# The protocols test different clips, so a difference between two total scores may come from the clips. Here we compare every
# model with itself on the clips that both protocols test. The intervals are over speakers.

# %%
fall = tables["11_fall"]
stand = [results.stands_for_its_system(row.system, row.model) for row in fall.itertuples()]
if any(stand):
    figure = comparison.falls(fall[stand])
    caption = "UAR lost from each protocol to the strictest one of the model, on the same clips; 95 % intervals over "
    caption += f"speakers; hollow: fewer than {metrics.FEWEST_SPEAKERS} speakers.{caveat}"
    style.save_figure(workspace, figure, "11_fall", caption)
    plt.show()
fall.round(3)

# %% [markdown]
# `loose` and `strict` are the UAR on the same clips, and `difference` is the loss. The loss still has two possible causes: the
# voice is new, and the protocols leave different numbers of clips for training.
#
# ## Models of one voice
#
# The prototype paper trains one model per speaker and tests it on the same speaker, so it says nothing about new speakers. This
# table compares it with the baselines on exactly the clips that all of them tested.

# %%
tables["11_one_voice"].round(3)

# %% [markdown]
# ## What it costs
#
# The table shows parameters, the seconds to train all folds, and the milliseconds from file to decision. Times vary from run
# to run.

# %%
costs.drop(columns="machine").round(1)

# %% [markdown]
# ## Is one system really better than another?
#
# The comparison uses up to three models per system, which its toml file names. Models that use only level or length are left
# out. Each pair is compared on the utterances that both classified. The permutation test exchanges the answers of the two
# systems speaker by speaker. With up to 12 speakers, p cannot fall below $2/2^n$; with more, 9,999 random exchanges are drawn.
# Holm's correction gets stricter with the number of pairs. So we first ask one question with few pairs: **does any model beat
# the MFCC baseline?**

# %%
decided = results.stand_side_by_side(results.load_decisions(workspace), strictest)
beaten, pairs = tables["11_beaten"], tables["11_significance"]
for what, family in (("against the MFCC baseline", beaten), ("of all with all", pairs)):
    if len(family):
        least = min(1, len(family) * metrics.smallest_p(family["n_speakers"].max()))
        n_sure = (family["p_holm"] < 0.05).sum()
        print(f"{strictest}, {len(family)} pairs {what}: {n_sure} differ at 5 % after correction")
        print(f"  (with this number of speakers and pairs, the smallest possible p is {least:.4f})")
beaten.sort_values("difference", ascending=False).round(4)

# %%
gap = results.square(pairs, "difference", list(decided))
marks = results.square(pairs, "p_holm", list(decided), sign=1).map(lambda p: "*" if p < 0.05 else "")
widest = float(gap.abs().max().max()) or 1.0
figure = comparison.matrix(gap, label="UAR of row minus column", low=-widest, high=widest, diverging=True, marks=marks)
caption = f"Differences of UAR, protocol {strictest}; * p < 0.05 by permutation over speakers, Holm-corrected for "
style.save_figure(workspace, figure, "11_significance", f"{caption}{len(pairs)} pairs.{caveat}")
plt.show()

# %% [markdown]
# ## What each step brought
#
# Some steps were meant to make scores on new speakers better: other features, another classifier, artificial copies, means of
# several models. Each row compares a model that has the step with one that does not, on the same clips. The p is not corrected
# for the number of steps. `notebooks/choices.md` lists what was tried and given up.

# %%
tables["11_steps"].round(3)

# %% [markdown]
# ## Women and men
#
# A mean can hide that a system works better for one group of speakers.

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
    print("Nothing to compare. Genders that this corpus names:", " ".join(genders) or "none")

# %% [markdown]
# ## Does it know when it does not know?
#
# A system is calibrated if 70 % of the answers that it gives with 70 % confidence are right. The expected calibration error
# (ECE) is the mean distance from that. A support vector machine gives decision values. A sigmoid per class, fitted within the
# training part, turns them into probabilities, and the highest one is the answer. SigWavNet ends in a softmax over averages of
# normalised values. These are never far apart, so its confidence is always low.

# %%
figure = comparison.calibration(decided)
style.save_figure(workspace, figure, "11_calibration", f"Confidence against share right, protocol {strictest}.")
plt.show()
tables["11_calibration"].set_index("label").round(3).T

# %% [markdown]
# ## In noise
#
# We train on clean speech and test on the same clips with white noise. A model that keeps its UAR relies on cues that survive
# the noise. This is done for the baselines only, because every network would have to classify every noisy clip again.

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
# A model gets a number of clips of a new speaker without labels, and is tested on that speaker's other clips. The known clips
# are chosen in four ways. They are drawn at random (`random`). Or all are neutral or calm, and the model is not told
# (`neutral`) or told (`neutral_told`). Or four fifths express one emotion, and the model is not told (`lopsided`). There is one
# support vector machine per feature set, trained for this number of clips: for every training speaker, the same number of
# clips is known, and these are neutral for `neutral_told`. Intervals are over draws and speakers. Two settings of this method
# were chosen by looking at this curve on EmoDB (`notebooks/choices.md`), so EmoDB's curve is probably a little too high.

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
    print("left out, because a speaker has too few such clips:", ", ".join(absent) or "nothing")
curve.round(3)

# %%
needed = known_clips.clips_needed(curve) if is_several else None
print(
    "Smallest number of random clips from which on the model is better than with none:", needed or "none of those tried"
)

# %% [markdown]
# ## Confusions of the best model
#
# Of the models compared above, this one has the highest UAR under the strictest protocol. It was selected on the same test clips,
# so its score is slightly too good.

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
# ## On other corpora
#
# Does a model work on a corpus that it was not trained on? We train on each corpus, on all but one, and on all of them, and test
# on each, with the emotions that all of them have. With a single corpus, women and men take the place of corpora.

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
    print("There is only one corpus, and it does not name the speakers' genders: nothing to compare.")

# %% [markdown]
# All scores here are speaker-independent. *Normalised by corpus* means that each feature is standardised with the mean and
# deviation of its own corpus. This uses no labels, but it needs recordings of the tested corpus. The deep CNN of notebook 05 is
# included if 05 was run on these corpora.

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
    print(f"{len(shared)} of {len(utterances)} utterances have emotions that all corpora share: {emotions}")

# %%
carried = across.score_crossings(crossed)
if several:
    figure = comparison.crossings(carried)
    caption = "UAR of models trained on the corpora at the left, tested on those below, 95 % intervals over speakers; framed: "
    caption += f"training includes other speakers of the tested corpus. Chance is {1 / shared['emotion'].nunique():.2f}.{caveat}"
    style.save_figure(workspace, figure, "11_across", caption)
    plt.show()

# %% [markdown]
# ### Language or recording?
#
# We split the loss into two parts. *Recording* is what normalisation by corpus recovers: level, microphone, room, and
# everything else that shifts a whole corpus. *Rest* is what stays lost: language, acting, and the instructions to the actors.
# These causes cannot be separated if no two corpora share a language. As a check, we test the models of a corpus on its own
# clips after giving these clips the statistics of the other corpus (*worn*). The language then stays the same, and only the
# recording conditions change.

# %%
lost = across.measure_losses(crossed, worn)
if several:
    figure = comparison.losses(lost, chance=1 / shared["emotion"].nunique())
    caption = (
        "UAR on each corpus (right of the arrow) of models trained on it and of models trained on another (left of it)."
    )
    style.save_figure(workspace, figure, "11_lost", f"{caption}{caveat}")
    plt.show()
lost.round(3)

# %% [markdown]
# ### Which corpus is it?
#
# A warning: the same features also reveal the corpus, even for new speakers. A model that is trained on several corpora can
# exploit this if the corpora differ in how often each emotion occurs.

# %%
told = pd.DataFrame(columns=["features", "normalised", "uar", "chance"])
if several:
    folds = make_folds(shared, "speaker", folds="5_speakers", seed=seed)
    hearing = {m: features[m][is_shared] for m in ("duration", "loudness", *chosen["crossed_models"]) if m in features}
    told = pd.concat([crossing.tell_corpora(rows, shared, folds).assign(features=m) for m, rows in hearing.items()])
told.round(3)

# %% [markdown]
# ### Do more corpora help?
#
# We compare training on all corpora with training on the tested corpus alone, on the same clips. `difference` is in UAR, and
# positive if the other corpora help. Holm's correction covers all rows.

# %%
adding = across.measure_adding(crossed)
adding.round(3)

# %% [markdown]
# ## Do the systems fail on the same clips?
#
# If two systems make errors on the same clips (κ near 1), combining them gains little. Clips that all systems get wrong are
# worth listening to. The comparison uses up to three models per system.

# %%
wrong = results.errors(decided)
kappa = results.failing_together(wrong)
figure = comparison.matrix(kappa, label="Cohen's κ of errors", low=-1, high=1, diverging=True)
style.save_figure(workspace, figure, "11_failing_together", f"Agreement of errors, protocol {strictest}.")
plt.show()

# %%
independent = float(np.prod(wrong.mean()))
print(
    f"All {wrong.shape[1]} models are wrong on {wrong.all(axis=1).mean():.1%} of the clips. If their errors were "
    f"independent, it would be {independent:.1%}."
)
tables["11_hardest"].head(10)

# %% [markdown]
# The first table shows how similar the errors of the ensemble's members are, under the same protocol. The second shows how often
# an answer is right, by the number of members that gave it.

# %%
together = decided.get("ensemble · new speaker")
if together is not None:
    members, _ = ensemble.find_members(workspace, named["new_speaker"], "speaker", way)
    display(results.failing_together(results.errors(members | {"together": together})).round(2))
    display(ensemble.agreement(members, together).round(3))

# %% [markdown]
# ## Comparison with published scores
#
# This table compares published scores with ours, for the same model under the same kind of split. `agree` says whether
# classes, tested clips, folds, network size (within 1 %) and epochs are also the same; only then is the protocol the same. If
# `ours` is empty, the model was not run. Published scores on other corpora are in `ser_utils/evaluation/published.csv`.

# %%
published = tables["11_published"]
if published["ours"].notna().any():
    figure = comparison.published(published)
    caption = f"Published scores, on whole corpora, and ours under the same kind of split.{caveat}"
    style.save_figure(workspace, figure, "11_published", caption)
    plt.show()
published.round(3)

# %% [markdown]
# ## Other seeds
#
# If other seeds of this dataset and profile were run, they count as repeated runs. The table shows the mean and spread of UAR,
# and an interval that covers both speakers and seeds. With `make 06 SEED=1`, for example, the system of notebook 06 has a
# second seed. Run this notebook again after it.

# %%
seeds = tables["11_seeds"]
seeds.round(3) if len(seeds) else print("Only one seed so far: make reproduce SEED=1 adds another.")

# %% [markdown]
# ## A model to use at once
#
# The 288 numbers of `voice` and one logistic regression for each number of known clips make a small model that needs neither a
# network nor openSMILE. `make predict FILE=my.wav` uses it, and `FILES=folder` gives it other recordings of the same voice. The
# model is in the repository if the licence of the corpus allows it.

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
