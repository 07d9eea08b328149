# ---
# jupyter:
#   graph:
#     reads: ["02", "04", "05", "06", "07", "08"]
#     settings: [comparison]
#     files: [published, systems]
# ---

# %% [markdown]
# # 10 · All systems, all protocols, one table
#
# **Question.** How good is each system when nothing leaks, how sure can one be of it, and what has to be beaten?
#
# **Reads** the predictions, audits and costs that notebooks 02 to 08 left, whichever there are, and the utterance
# table of 00. **Writes** `scores.csv`, `costs.csv`, the tables of this page and all decisions
# they are made of into `results/<dataset>/`.
#
# **Reproduces** no paper: published figures stand beside ours under the same kind of split. **Run time** on two cores:
# about a minute for the demo corpus; the first time on all of RAVDESS some minutes for features, openSMILE's twenty.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ser_utils.evaluation import figures as comparison
from ser_utils.evaluation import metrics, results
from ser_utils.evaluation.splits import make_folds
from ser_utils.figures import networks, style
from ser_utils.profiles import settings, settings_table
from ser_utils.systems import baselines
from ser_utils.workspace import Workspace
from tools import verify as shipped

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
# A corpus in which the length or the level of a clip gives its emotion away is no test of a network. So four baselines
# run here, on the same folds: always one emotion; duration alone; loudness alone; and 20 MFCC with their
# slopes, mean and standard deviation over time, into a support vector machine with scikit-learn's default settings.
# openSMILE's two feature sets join them where it is installed. Scaling is fitted in each fold on what is trained on.

# %%
models = [*chosen["models"], *(chosen["opensmile_models"] if baselines.has_opensmile() else [])]
others = results.list_predictions(workspace).query("system not in ('baseline', 'opensmile')")
# a profile that thins may train some folds of many, "1_of_…": the baselines run on whole sets of folds
used = {
    (row.protocol, row.folds)
    for row in others.itertuples()
    if row.protocol != "paper" and "_of_" not in row.folds
}
wanted = results.protocols_for(utterances) | used
for model in models:
    for protocol, folds in sorted(wanted, key=str):
        baselines.evaluate(workspace, utterances, model, protocol, folds)
left_out = [model for model in chosen["opensmile_models"] if model not in models]
print("openSMILE is not installed: without", *left_out) if left_out else print(baselines.OPENSMILE_LICENCE)

# %% [markdown]
# ## The leaderboard
#
# Every number comes from the predictions files alone. UAR, the mean of the recalls of the classes, comes first: chance
# is one over the number of classes. It pools all test predictions; its 95 % interval draws whole *speakers* anew, since
# the clips of one voice are not independent. Systems that decide about segments also vote for whole utterances.

# %%
scores = results.gather_scores(workspace)
costs = results.gather_costs(workspace)
shipped.save_results(workspace, scores=scores, costs=costs)
missing = results.missing_systems(scores)
print("Not run yet (notebook):", ", ".join(missing) if missing else "none")
scores[
    ["system", "model", "protocol", "folds", "level", "uar", "uar_low", "uar_high", "accuracy", "macro_f1"]
].round(3)

# %%
n_speakers = utterances["speaker"].nunique()
caveat = f" With {n_speakers} speakers: {metrics.TOO_FEW}." if n_speakers < metrics.FEWEST_SPEAKERS else ""
announced = utterances.attrs.get("announcement", "")
caveat += f" Partial corpus: {announced}." if announced else ""
chance = 1 / utterances["emotion"].nunique()
whole = scores[scores["level"] == "utterance"]
figure = comparison.leaderboard(whole, chance=chance)
caption = (
    "UAR of whole utterances by protocol, 95 % intervals over speakers; dotted: chance; hollow: fewer than "
)
caption += f"{metrics.FEWEST_SPEAKERS} speakers. random: encoders of random weights, of no meaning.{caveat}"
style.save_figure(workspace, figure, "10_leaderboard", caption)
plt.show()
print(caveat)

# %% [markdown]
# Read it from left to right: `paper` is what was published, `speaker` what a stranger's voice would get. Whoever stands
# on the dotted line has learned nothing about emotion.
#
# ## What leaks
#
# The audit counts what test shares with everything that was fitted or chosen on. `paper` promises nothing, so all it
# shares is listed; under the others an entry would be a broken promise, but for `…_by_speaker`, whose name says that it
# takes the tested voice's own statistics.

# %%
scores.groupby(["protocol", "system"], sort=False)["leaks"].agg(
    lambda kinds: " | ".join(sorted(set(kinds)))
).unstack(0)

# %%
fall = results.fall(scores)
stand = [results.stands_for_its_system(row.system, row.model) for row in fall.itertuples()]
figure = comparison.falls(fall[stand], chance=chance)
style.save_figure(
    workspace, figure, "10_fall",
    f"UAR from the published split to strangers' voices; dotted: chance. Intervals are in the leaderboard.{caveat}",
)  # fmt: skip
plt.show()
fall.round(3)

# %% [markdown]
# `fall` is the distance from the published split to the strictest protocol the system knows. It mixes what the voice
# gives away with how many clips each protocol leaves to learn from, and with chance: test clips differ, too.
#
# ## What it costs
#
# Parameters, seconds to train all folds, and milliseconds from file to decision. These vary from run to run.

# %%
costs.drop(columns="machine").round(1)

# %% [markdown]
# ## Is one really better than the other?
#
# The models that stand for their systems (as their tomls name them), without those that hear nothing but level or length, on the
# utterances both decided. The test exchanges two systems' answers speaker by speaker; with up to 12 speakers p cannot
# fall below $2/2^n$, beyond that 9,999 exchanges are drawn. Holm's correction multiplies by the number of pairs, so one
# question is asked first, whose pairs are few: **does anything beat the MFCC baseline?**

# %%
strictest = "speaker" if "speaker" in set(scores["protocol"]) else "utterance"
found = results.decisions(workspace, strictest)
beaten, pairs = results.compare_all(found, against=results.TO_BEAT), results.compare_all(found)
for what, family in (("against the MFCC baseline", beaten), ("of all with all", pairs)):
    if len(family):
        least = min(1, len(family) * metrics.smallest_p(family["n_speakers"].max()))
        print(f"{strictest}, {len(family)} pairs {what}: {(family['p_holm'] < 0.05).sum()} differ at 5 % after "
              f"correction, below which p cannot fall beyond {least:.4f}")  # fmt: skip
beaten.sort_values("difference", ascending=False).round(4)

# %%
gap = results.square(pairs, "difference", list(found))
marks = results.square(pairs, "p_holm", list(found), sign=1).map(lambda p: "*" if p < 0.05 else "")
figure = comparison.matrix(
    gap, label="UAR of row minus column", low=-0.6, high=0.6, diverging=True, marks=marks
)
style.save_figure(
    workspace, figure, "10_significance",
    f"Differences of UAR, protocol {strictest}; * p < 0.05 by permutation over speakers, Holm-corrected for "
    f"{len(pairs)} pairs.{caveat}",
)  # fmt: skip
plt.show()

# %% [markdown]
# ## Women and men
#
# A mean can hide that a system serves one half of the speakers better.

# %%
gender = results.by_gender(found, utterances)
genders = sorted(set(utterances["gender"]) - {""})
if genders == ["female", "male"]:
    figure = comparison.by_gender(gender)
    style.save_figure(
        workspace, figure, "10_gender", f"UAR for female and male speakers, protocol {strictest}.{caveat}"
    )
    plt.show()
else:
    print("Nothing to compare: of whom a voice is, this corpus says", " ".join(genders) or "nothing")

# %% [markdown]
# ## Does it know when it does not know?
#
# A system is calibrated if, of the answers it gives with 70 % confidence, 70 % are right. The expected calibration error
# (ECE) is the mean distance from that. A support vector machine has no probabilities: its softmax of decision values
# only ranks. SigWavNet ends in a softmax of averages of normalised values, which are never far apart: it cannot be sure.

# %%
calibration = pd.DataFrame(
    {"label": list(found), "ece": [metrics.expected_calibration_error(table) for table in found.values()]}
)
figure = comparison.calibration(found)
style.save_figure(
    workspace, figure, "10_calibration", f"Confidence against share right, protocol {strictest}."
)
plt.show()
calibration.set_index("label").round(3).T

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
    for snr_db in ["clean", *chosen["snr_db"]]:
        added = None if snr_db == "clean" else baselines.load_features(
            workspace.folder("features"), utterances, model, snr_db=snr_db
        )  # fmt: skip
        heard, _ = baselines.cross_validate(
            features[model], utterances, folds, model=model, test_features=added
        )
        noisy[model, snr_db] = metrics.unweighted_average_recall(heard["emotion"], heard["prediction"])
noise = pd.Series(noisy).unstack()[["clean", *chosen["snr_db"]]]

# %%
figure = comparison.noise(noise)
style.save_figure(workspace, figure, "10_noise", f"Baselines under added white noise, protocol {strictest}.")
plt.show()
noise.round(3)

# %% [markdown]
# ## The best one's confusions
#
# The highest UAR under the strictest protocol, picked after the fact on the same test clips, which flatters it.

# %%
best = max(
    found,
    key=lambda label: metrics.unweighted_average_recall(found[label]["emotion"], found[label]["prediction"]),
)
figure = networks.confusion_matrix(found[best]["emotion"], found[best]["prediction"], title=best)
style.save_figure(workspace, figure, "10_confusion", f"Confusions of {best}, protocol {strictest}.")
plt.show()
metrics.per_class(found[best]["emotion"], found[best]["prediction"]).round(3)

# %% [markdown]
# ## Elsewhere
#
# Trained on one corpus, tested on another, on the emotions both have; the diagonal is speaker-independent within the
# corpus. With a single corpus at hand women and men take the corpora's place.

# %%
several = utterances["corpus"].nunique() > 1
domain = utterances["corpus"] if several else utterances["gender"]
across = pd.DataFrame()
if several or genders == ["female", "male"]:
    across, common = baselines.across_domains(
        features["mfcc"], utterances, domain, lambda rows: make_folds(rows, "speaker", seed=seed)
    )
    figure = comparison.matrix(across, label="UAR", marks=common.map("{} classes".format))
    what = "corpora" if several else "genders"
    style.save_figure(workspace, figure, "10_across", f"MFCC baseline across {what}; UAR of common classes.")
    plt.show()
else:
    print("One corpus that does not say who is a woman and who a man: nothing to cross.")

# %% [markdown]
# ## Do they fail together?
#
# If two systems err on the same clips (κ near 1) they have learned the same thing, and joining them gains little. Clips
# that all get wrong are worth listening to. Asked are the models that stand for their systems.

# %%
wrong = results.errors(found)
kappa = results.failing_together(wrong)
figure = comparison.matrix(kappa, label="Cohen's κ of errors", low=-1, high=1, diverging=True)
style.save_figure(workspace, figure, "10_failing_together", f"Agreement of errors, protocol {strictest}.")
plt.show()

# %%
hardest = wrong.mean(axis=1).rename("share of systems wrong").reset_index()
hardest = hardest.merge(utterances[["utterance_id", "speaker", "emotion"]]).sort_values(
    ["share of systems wrong", "utterance_id"], ascending=[False, True]
)
independent = float(np.prod(wrong.mean()))
print(
    f"All {wrong.shape[1]} wrong on {wrong.all(axis=1).mean():.1%} of clips; {independent:.1%} if independent."
)
hardest.head(10)

# %% [markdown]
# ## Beside what was published
#
# The same model under the same kind of split, in our profile; `how` says on what, and where `ours` is empty it was not
# run. A published figure of another corpus is not listed; `ser_utils/evaluation/published.csv` has them all.

# %%
published = results.beside_published(scores)
if published["ours"].notna().any():
    figure = comparison.published(published)
    caption = f"Published figures, of whole corpora, and ours under the same protocol.{caveat}"
    style.save_figure(workspace, figure, "10_published", caption)
    plt.show()
published.round(3)

# %% [markdown]
# ## Again with other seeds
#
# Other seeds of this dataset and profile that were run count as repeated runs: mean and spread of UAR.

# %%
seeds = results.gather_seeds(workspace)
seeds.round(3) if len(seeds) else print("Only one seed so far: make reproduce SEED=1 adds another.")

# %% [markdown]
# ## Saved

# %%
tables = {
    "10_fall": fall,
    "10_beaten": beaten,
    "10_significance": pairs,
    "10_gender": gender,
    "10_calibration": calibration,
}
tables |= {"10_noise": noise.rename_axis("model").reset_index()}
tables |= {"10_across": across.reset_index()} if len(across) else {}
tables |= {"10_published": published, "10_hardest": hardest.head(50)}
tables |= {"10_seeds": seeds} if len(seeds) else {}
workspace.record("10", utterances, chosen)
shipped.save_results(workspace, scores=scores, costs=costs, **tables)
shipped.keep_decisions(workspace)
print(f"{len(scores)} rows in {workspace.results / 'scores.csv'}; README's table comes from it")
