# ---
# jupyter:
#   graph:
#     reads: ["00"]
#     settings: [spectrogram_cnn]
# ---

# %% [markdown]
# # 04 · Spectrogram CNNs: original clips, resized clips, artificial clips
#
# **Question.** Does a network recognise emotions better in clips at their own length than in resized clips? Does artificial
# data help? And how much of the published accuracy comes from choosing the epoch on the test part?
#
# **Reads** the utterance table of 00. **Writes** predictions of the system `spectrogram_cnn` under every protocol.
#
# **Reproduces** the study of mel-spectrogram CNNs on AESDD (SigurdST/emotion_recognition): its table of six nets in
# thirteen trainings, and its figures. **Run time** on two cores, profile `quick`: about one minute on the demo corpus,
# an hour on AESDD. Profile `paper` trains the nets as the study did, which takes days on two cores.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Audio, display

from ser_utils.corpora.loading import common_rate
from ser_utils.evaluation.metrics import FEWEST_SPEAKERS, compare_paired, holm
from ser_utils.features import augmentation
from ser_utils.features.audio import load_audio, reduce_noise
from ser_utils.features.frames import artificial_stores, clip_frames, frame_store
from ser_utils.figures import networks, spectrograms, speech, style
from ser_utils.profiles import settings, settings_table
from ser_utils.systems import spectrogram_cnn, spectrogram_published, study
from ser_utils.training.fit import best_epoch
from ser_utils.workspace import REPOSITORY, Workspace, read_json, write_csv

# %% tags=["parameters"]
dataset = "demo"  # a corpus, several joined by "+", or a path to your own table
profile = "quick"  # smoke, quick or paper
seed = 0
root = ""  # where everything is written; empty: the repository

# %%
workspace = Workspace(dataset, profile, seed, root)
chosen = settings("spectrogram_cnn", profile, dataset)
style.set_style()
settings_table("spectrogram_cnn")

# %%
utterances = workspace.load_table("utterances")
example = utterances.iloc[(utterances["duration_s"] - utterances["duration_s"].median()).abs().argmin()]
signal, rate = load_audio(example["path"], chosen["sample_rate_hz"] or None)
print(f"{len(utterances)} utterances; the example is {example['utterance_id']} ({example['emotion']}), {rate} Hz")
display(Audio(signal, rate=rate))

# %% [markdown]
# ## The recordings
#
# One recording of each emotion, as the study shows them.

# %%
one_each = style.sort_by_emotion(utterances.drop_duplicates("emotion"))
examples = {row.emotion: load_audio(row.path, rate) for row in one_each.itertuples()}
figure = speech.one_per_emotion(examples)
style.save_figure(workspace, figure, "04_waveforms", "A recording of each emotion: waveform and spectrogram.")
plt.show()

# %% [markdown]
# ## Noise reduction
#
# The source treats the first second of each clip as noise and subtracts it. If somebody speaks in that second, as in most
# corpora, this also reduces the voice. The noise can also be estimated from the whole clip. The figure below shows what each of
# the two methods leaves.

# %%
by_first_second = reduce_noise(signal, rate, noise_s=1.0)
by_whole_clip = reduce_noise(signal, rate)
figure = speech.before_and_after(signal, by_first_second, rate, names=("recorded", "first second as noise"))
style.save_figure(workspace, figure, "04_noise_reduction", "One clip, its first second taken for noise.")
plt.show()
display(Audio(by_first_second, rate=rate), Audio(by_whole_clip, rate=rate))

# %%
kept_by = pd.DataFrame(
    [
        {
            "first_second": np.mean(reduce_noise(clip, rate, noise_s=1.0) ** 2) / np.mean(clip**2),
            "whole": np.mean(reduce_noise(clip, rate) ** 2) / np.mean(clip**2),
        }
        for clip in (load_audio(path, rate)[0] for path in utterances["path"].iloc[:: len(utterances) // 12 + 1])
    ]
)
(10 * np.log10(kept_by)).describe().loc[["mean", "min", "max"]].round(1)

# %% [markdown]
# The table shows how much of the energy of a clip is left, in dB, over twelve clips. At −10 dB, nine tenths of the energy are
# gone. In recordings as clean as these, most of that was not noise. Profile `paper` does the same as the source. The other
# profiles estimate the noise from the whole clip. The demo corpus is synthetic and is not changed.
#
# ## From sound to log-mel
#
# The short-time Fourier transform splits short frames of the samples $x$, tapered by a window $w$, into frequencies:
# $X(f, t) = \sum_\tau x(\tau)\, w(\tau - t)\, e^{-2\pi i f \tau}$. Its power $|X|^2$ goes through triangular filters $H$.
# Their centres lie evenly on the mel scale, in its common form $m(f) = 2595 \log_{10}(1 + f / 700)$: close together at low
# frequencies, which we hear most finely. On the decibel scale, $10 \log_{10} (H |X|^2 / \max)$, equal steps sound about equal.

# %%
grid = {key: chosen[key] for key in ("n_mels", "n_fft", "hop_length")}
figure = spectrograms.from_sound_to_log_mel(signal, rate, **grid)
style.save_figure(workspace, figure, "04_log_mel", "One clip from samples to log-mel.")
plt.show()
print(
    f"a frame of {1000 * grid['n_fft'] / rate:.0f} ms every {1000 * grid['hop_length'] / rate:.0f} ms, "
    f"{grid['n_mels']} bands up to 8 kHz, 80 dB below the maximum is silence"
)

# %%
frames = grid | {"kind": "log_mel", "denoise": chosen["denoise"]}
several = utterances["sample_rate_hz"].nunique() > 1
common = {"sample_rate_hz": chosen["sample_rate_hz"] or (common_rate(utterances) if several else 0)}
features = workspace.folder("features", "spectrogram_cnn")
store = frame_store(features / "log_mel", utterances, frames, **common)
assert np.isfinite(store.array[:: len(store.array) // 500 + 1]).all()

# %% [markdown]
# The first figure shows how much the lengths of clips differ. The two kinds of network below deal with this in different
# ways. The second figure shows the mean level of each clip, which is high if much of the clip lies near its maximum.

# %%
lengths = store.table["n_rows"]
figure, (seconds, counts) = plt.subplots(1, 2, figsize=(8, 2.6))
seconds.hist(utterances["duration_s"], bins=30)
counts.hist(lengths, bins=30)
seconds.set(xlabel="duration (s)", ylabel="clips")
counts.set(xlabel="frames", ylabel="clips")
style.save_figure(workspace, figure, "04_lengths", "Durations, and frames of the log-mel spectrograms.")
plt.show()

# %%
levels = utterances.assign(level_db=[store.of(name).mean() for name in utterances["utterance_id"]])
figure = speech.by_emotion(levels, "level_db", "mean level (dB below maximum)")
style.save_figure(workspace, figure, "04_levels", "Mean level of each clip's log-mel, by emotion.")
plt.show()

# %% [markdown]
# ## The folds, and what leaks between them
#
# Protocol `paper` is the published split: 80 % of the clips for training and 20 % for testing, stratified by emotion. The
# epoch is chosen on the test part, as published. The other protocols keep utterances, texts or speakers apart and choose the
# epoch on a validation part. Each clip is standardised by its own mean and standard deviation, so no scaler can have seen a
# test clip.

# %%
folds = study.make_system_folds(workspace, utterances, "spectrogram_cnn", chosen)
study.describe_folds(folds, utterances).round(2)

# %% [markdown]
# ## Two ways to deal with length
#
# A CNN that ends in a global average accepts clips of any length, if each batch holds one clip. A CNN that ends in a flat
# layer needs clips of one shape. Shorter spectrograms are therefore padded at the end with zeros, which stand for the clip's
# mean level. Longer ones are resampled over time, so that they seem to be spoken faster.

# %%
clip = np.asarray(store.of(example["utterance_id"]))
n_frames, level = chosen["resized_frames"], clip.mean()  # zero, once the clip is standardised
long = np.concatenate([clip] * (n_frames // len(clip) + 2))
shown = {"as it is": clip} | {
    f"{how} {n_frames} frames": spectrogram_cnn.resample_clip(rows - level, n_frames) + level
    for how, rows in {"padded to": clip[: n_frames // 2], "squeezed into": long}.items()
}
figure = spectrograms.versions(shown, rate, hop_length=grid["hop_length"], columns=3)
caption = "A clip, its first part padded, and repetitions of it squeezed, as the resized CNN sees them."
style.save_figure(workspace, figure, "04_resized", caption)
plt.show()
print(f"{(lengths < n_frames).mean():.0%} of the clips are padded, the others squeezed")

# %% [markdown]
# The three-layer net on clips pools after its first two convolutions only; the other nets pool after every convolution.
# Dropout is 0.25 on clips and 0.5 on resized spectrograms. Here the loss is computed from the logits, not from probabilities. One
# step of the flat layer's many thousand weights can move a logit by ten or more. The float32 probabilities are then exactly 0
# and 1, where their loss has no gradient, and some resized nets would stay at chance forever.

# %%
n_classes = utterances["emotion"].nunique()
names = {"clip_3_layers": "clips of any length", "image_3_layers": "resized clips"}
drawn = [spectrogram_cnn.network_of(name, chosen)(n_classes, grid["n_mels"]) for name in names]
figure = networks.architecture(*drawn, names=list(names.values()))
style.save_figure(workspace, figure, "04_architecture", "The two networks with three convolution layers.")
plt.show()

# %% [markdown]
# ## Artificial data, as published and done properly
#
# The source replaces every training clip by ten altered copies. Noise, pitch shift, frequency mask and time mask are each
# applied with probability 0.6, and all four change the spectrogram instead of the sound. The noise of 0.01 dB cannot be heard.
# The pitch shift treats the power of each band as a waveform, so it moves no pitch. The masks are filled with 0 dB, which is
# the loudest value of a clip.

# %%
rng = np.random.default_rng(seed)
published = {"as it is": clip} | {name: change(clip, rng) for name, change in augmentation.PUBLISHED_CHANGES.items()}
figure = spectrograms.versions(published, rate, hop_length=grid["hop_length"], columns=5)
style.save_figure(workspace, figure, "04_artificial_published", "The source's four changes, done to the spectrogram.")
plt.show()

# %% [markdown]
# We correct this. Noise and pitch shift change the sound, and masks are filled with silence. We add three changes that occur
# in real speech: another tempo, another onset and another level. Only training clips are copied, after the split.

# %%
sounds = {
    name: change(signal, rate, np.random.default_rng(seed)) for name, change in augmentation.WAVEFORM_CHANGES.items()
}
pictures = {"as it is": clip} | {name: clip_frames(sound, rate, **frames) for name, sound in sounds.items()}
pictures |= {name: change(clip, rng) for name, change in augmentation.SPECTROGRAM_CHANGES.items()}
figure = spectrograms.versions(pictures, rate, hop_length=grid["hop_length"])
style.save_figure(workspace, figure, "04_artificial", "Seven changes of one clip, done properly.")
plt.show()

# %%
for name, sound in sounds.items():
    print(name)
    display(Audio(sound, rate=rate))

# %% [markdown]
# You hear the gain, but do not see it, because the log-mel is relative to the maximum of each clip.

# %%
four = tuple(augmentation.PUBLISHED_CHANGES)
making = common | {"copies": chosen["copies"], "seed": seed}
copies = {
    "published": artificial_stores(features / "published", utterances, frames, published=True, changes=four, **making),
    "artificial": artificial_stores(features / "artificial", utterances, frames, changes=four, **making),
}
training_clips = folds["utterance"].query("role == 'train'")["utterance_id"]
changed = utterances[utterances["utterance_id"].isin(training_clips)]
for change in chosen["single_changes"]:
    folder = features / f"only_{change.replace(' ', '_')}"
    copies[change] = artificial_stores(folder, changed, frames, changes=(change,), **making)

# %% [markdown]
# ## Training
#
# Under `paper`, each net is trained with Adam and without class weights, and the epoch with the best test accuracy is kept, as
# published. Profile `paper` makes all thirteen trainings of the study, `quick` eight of them, with fewer epochs and copies; the
# table of settings above lists them. `clip_published` and `image_published` learn from altered copies only. Three nets are
# ours: `clip_artificial` and `image_artificial` learn from the clips and from proper copies, and `clip_bucketed` learns from
# batches of sixteen clips of similar length. Under the other protocols, classes are weighted, and the epoch with the best UAR
# on validation is kept.

# %%
plan = spectrogram_cnn.plan_study(workspace, store, chosen, list(folds), copies)
n_heard = spectrogram_cnn.count_clips(plan, folds)
minutes = n_heard / 60_000  # at 1 ms a clip
print(f"{len(plan)} models hear {n_heard:,} clips in all epochs. A clip takes 1 ms (resized, small) to 10 ms ")
print(f"(44.1 kHz, one at a time): {minutes:.1f} to {10 * minutes:.0f} minutes of CPU time")

# %%
results = spectrogram_cnn.train_study(workspace, utterances, folds, plan)
compared = {key: result for key, result in results.items() if " " not in key[0]}
scores = study.score_results(compared)
workspace.save_table(scores, "spectrogram_cnn_scores")
scores.pivot(index="model", columns="protocol", values="uar")[list(folds)].round(3)

# %%
chance = 1 / n_classes
figure = spectrograms.scores(scores, chance=chance)
caption = "UAR of the spectrogram CNNs, 95 % intervals over speakers; paper leaks and chooses its epoch on test."
style.save_figure(workspace, figure, "04_scores", caption)
plt.show()

# %% [markdown]
# The figure shows the UAR over all test clips, with intervals over speakers. Compare the protocols of one net to see what is
# left of its score when speakers are new. Compare the nets under one protocol to see whether they differ by more than their
# intervals.
#
# ## The published table and this run
#
# The study reports accuracy on one split of AESDD, at the best epoch on test. A net of exactly the published accuracy would
# score between `low` and `high` on 95 % of all random draws of 121 test clips. `last` is the accuracy of the last epoch, and
# `neighbours` the mean of the ten epochs around the best one: neither profits from the best single epoch.


# %%
def show(table):
    """A table with three decimals, but learning rates and claims in full."""
    rates = {"rate": table["rate"].map("{:g}".format)} if "rate" in table else {}
    with pd.option_context("display.max_colwidth", None):
        display(table.assign(**rates).round(3))


histories = spectrogram_cnn.published_histories(results, plan)
show(spectrogram_cnn.compare_with_published(histories))

# %% [markdown]
# For AESDD, the thirteen trainings were made at their published settings, most of them on an accelerator, each on five draws of
# the split. The study reports one split, which is one more random draw: compare its accuracy with the spread of the five. Their
# answers ship with the results. `python -m tools.published_nets NET RATE PROTOCOL` makes one of these trainings again, on two
# cores in hours.

# %%
elsewhere = REPOSITORY / "results" / workspace.name / "accelerator"
answers = spectrogram_published.read_answers(elsewhere)
if answers:
    published = spectrogram_cnn.compare_with_published(pd.read_csv(elsewhere / "04_histories.csv"))
    write_csv(workspace.results / "04_published.csv", published)
    made = read_json(elsewhere / "04_provenance.json")
    print("What differs from the source:", *made["differs_from_the_source"], sep="\n- ")
    print(f"Left out: {made['left_out']}")
    show(published.drop(columns=["published_epoch", "epochs_published"]))

# %% [markdown]
# **How much is the choice of the epoch, and how much are known speakers?** Some of these nets were trained twice more. `best`
# and `neighbours` are as above. For `validated`, a validation part chooses the epoch, which leaves a quarter fewer clips for
# training: a lower accuracy has two causes. For `new_speakers`, each speaker was left out once, too.

# %%
if answers:
    validated = pd.read_csv(elsewhere / "04_histories_validated.csv")
    splits = spectrogram_published.compare_splits(answers, published, validated)
    write_csv(workspace.results / "04_published_splits.csv", splits)
    show(splits)

# %% [markdown]
# **The study's findings, tested at its settings.** The nets of a claim were trained on the same draws. `draws` holds the difference of
# accuracy in each draw, or for each new speaker. `difference`, its interval and p are of UAR over all draws, with the six
# speakers as units, so p cannot be below 0.031; it is not corrected for the number of rows. Under `utterance` and `speaker`,
# validation chose the epoch.

# %%
if answers:
    findings = spectrogram_published.compare_nets(answers, spectrogram_published.FINDINGS, seed=seed)
    write_csv(workspace.results / "04_published_findings.csv", findings)
    show(findings)

# %% [markdown]
# **Which part of the artificial data explains the finding?** The resized net with four layers was trained again, at 1e-3, with
# one part of the artificial data at a time. The epoch is chosen on test. Ten unaltered copies make five times as many steps as the clips
# alone, since copies come in batches of sixteen, as published. Each change is therefore measured against them.

# %%
if answers:
    faults = spectrogram_published.compare_nets(answers, spectrogram_published.FAULTS, seed=seed)
    write_csv(workspace.results / "04_published_faults.csv", faults)
    show(faults.drop(columns="published"))

# %% [markdown]
# ## The study's two findings as claims

# %%
CLAIMS = {
    "batch size 1 beats resizing, 3 layers": ("clip_3_layers", "image_3_layers"),
    "batch size 1 beats resizing, 4 layers": ("clip_4_layers", "image_4_layers"),
    "artificial data as published helps": ("clip_published", "clip_4_layers"),
    "… and helps resized clips": ("image_published", "image_4_layers"),
    "artificial data done properly helps": ("clip_artificial", "clip_4_layers"),
    "… and helps resized clips, too": ("image_artificial", "image_4_layers"),
    "batches of 16 beat batch size 1": ("clip_bucketed", "clip_4_layers"),
}

# %%
rows = []
for claim, (better, worse) in CLAIMS.items():
    for protocol in folds:
        if {(better, protocol), (worse, protocol)} <= compared.keys():
            pair = [compared[model, protocol]["predictions"] for model in (better, worse)]
            rows.append({"claim": claim, "protocol": protocol, **compare_paired(*pair, seed=seed)})
claims = pd.DataFrame(rows)
claims["p_holm"] = holm(claims["p"])

# %%
few, sure = claims["n_speakers"] < FEWEST_SPEAKERS, claims["p"] < 0.05
cases = [few, sure & (claims["low"] > 0), sure & (claims["high"] < 0)]
claims["verdict"] = np.select(cases, ["too few speakers", "confirmed", "refuted"], "not decided")
workspace.save_table(claims, "spectrogram_cnn_claims")
claims.drop(columns="n_speakers").round(3)

# %% [markdown]
# The table shows differences of UAR on the same test clips. Intervals (95 %) and tests are over speakers, because the clips of
# one speaker are not independent. With fewer than five speakers, nothing is decided. A claim is confirmed or refuted if its
# interval excludes zero and p is below 0.05. This is before correction: `p_holm` corrects p for the number of claims, and a
# verdict with `p_holm` above 0.05 may be chance. The first four claims are about the study's two findings: that batch size 1
# beats resizing (claims 1 and 2), and that its artificial data does not help (claims 3 and 4 say the opposite, so if one of
# them is confirmed, it contradicts the study). The last three claims are ours. In
# `quick`, the nets on artificial data also have another learning rate and fewer epochs than the nets they are compared with.
# Each model is trained once, so these intervals do not show how much another seed would change a score.
#
# ## What a batch of one costs
#
# With batch size 1, an epoch has as many steps as clips. `clip_bucketed` is the same network on the same clips, but each batch
# holds sixteen clips of similar length, padded to the longest and masked. Is it faster?

# %%
n_clips, rows = (folds["paper"]["role"] == "train").sum(), []
for name in ("clip_4_layers", "clip_bucketed", "image_4_layers"):
    result = results[name, "paper"]
    seconds = result["histories"][0]["seconds"].iloc[1:].median()  # the first epoch compiles
    rows.append({"model": name, "ms per training clip": 1000 * seconds / n_clips, "weights": result["parameters"]})
cost = pd.DataFrame(rows).set_index("model")
cost.assign(times_bucketed=cost["ms per training clip"] / cost.loc["clip_bucketed", "ms per training clip"]).round(2)

# %% [markdown]
# The times are per clip, from the epochs after the first, while all cores are busy.
#
# ## Learning curves
#
# The figures show each net at each of its learning rates. The dot marks the epoch that was chosen on the test part.

# %%
curves = {
    model: result["histories"][0]
    for (model, protocol), result in results.items()
    if protocol == "paper" and model not in spectrogram_cnn.LIKE
}
for kind in ("clip", "image"):
    shown = {name: history for name, history in curves.items() if name.startswith(kind)}
    kept = {name: best_epoch(history, "val_accuracy", "max") for name, history in shown.items()}
    figure = networks.learning_curves(shown, values=("loss", "accuracy"), kept=kept)
    caption = f"The nets for {kind}s at each learning rate; thick: the test part, which `paper` watches."
    style.save_figure(workspace, figure, f"04_learning_{kind}", caption)
    plt.show()

# %% [markdown]
# If the training loss stays near the logarithm of the number of emotions, the net has learned nothing: the rate was too high,
# or too low for so few epochs.
#
# ## What each change brings on its own
#
# Here, the four-layer net on clips learns from the clips and from copies made by a single change, under protocol
# `utterance`. The log-mel is relative to the maximum of each clip, so a copy with another **gain** equals the clip itself and
# only adds training steps. The effect of another change is therefore what it brings beyond gain.

# %%
alone = {
    model.removeprefix(spectrogram_cnn.ALONE): result["predictions"]
    for (model, protocol), result in results.items()
    if model.startswith(spectrogram_cnn.ALONE)
}
over = {
    name: compare_paired(predictions, alone["gain"], seed=seed)
    for name, predictions in alone.items()
    if name != "gain" and "gain" in alone
}
pd.DataFrame(over, index=["difference", "low", "high", "p"]).T.add_suffix(" over gain").round(3)

# %% [markdown]
# ## Confusions
#
# Each of the study's six nets under `paper`, as the study shows them.

# %%
for model in dict.fromkeys(net for net, _, _ in chosen["trainings"]):
    predictions = results[model, "paper"]["predictions"]
    figure = networks.confusion_matrix(predictions["emotion"], predictions["prediction"], title=model)
    style.save_figure(workspace, figure, f"04_confusion_{model}", f"Confusions of {model} under `paper`.")
    plt.show()

# %% [markdown]
# ## Conclusions
#
# - The published accuracy is the best of many epochs on 121 test clips. The columns `best`, `neighbours` and `last` show how
#   much of a score comes from that choice alone, and `spread` how much depends on the random split.
# - On AESDD, at published settings and with known speakers, batch size 1 scores higher than resizing. With three layers, and
#   with four at equal learning rates, p is as low as six speakers allow; at the reported rates of four layers it is not
#   decided. For new speakers, no difference is found.
# - The published artificial data of AESDD differs from its clips by loud bars and blurred levels. For resized clips, masks at
#   0 dB score lower than unaltered copies, with p as low as six speakers allow. Its pitch shift alone scores higher and masks
#   at the floor score lower, but neither is decided. All changes together make no difference that could be told from chance:
#   this is what the study found. The row `clip_artificial` shows artificial data done properly.
# - With batch size 1, every clip keeps its own length. Masked batches allow the same. For equal numbers of epochs, batch size 1
#   makes sixteen times as many steps.

# %%
workspace.record("04", utterances, chosen)
claims.pivot(index="claim", columns="protocol", values="verdict").reindex(list(CLAIMS)).fillna("")

# %% [markdown]
# The notebook saved the predictions, audits and costs of every model and protocol. Notebook 11 compares them with the other
# systems.
#
# **References.** SigurdST, Emotion Recognition from Speech using Mel Spectrograms and CNNs (GitHub, 2025). Vryzas et al.
# 2018, Speech emotion recognition for performance interaction (AESDD). Park et al. 2019, SpecAugment. Sainburg et al.
# 2020, noisereduce. Stevens, Volkmann and Newman 1937, A scale for the measurement of the psychological magnitude pitch.
