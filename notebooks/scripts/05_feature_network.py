# ---
# jupyter:
#   graph:
#     reads: ["00"]
#     settings: [feature_network]
# ---

# %% [markdown]
# # 05 · MFCC and log-mel networks, on one corpus or several
#
# **Question.** MFCC or log-mel, a deep CNN or a CNN with a BiLSTM and attention: which tells emotions apart in voices it
# has never heard, and how much of a score is knowing the speakers?
#
# **Reads** the utterance table of 00. **Writes** predictions of the system `feature_network` under every protocol.
#
# **Reproduces** the networks of the multi-corpus study (RAVDESS, TESS, SAVEE, CREMA-D): a CNN of four blocks and a
# CNN–BiLSTM with attention, on 40 MFCC with energy and on log-mel. **Run time** on two cores, profile `quick`: about three
# minutes on the demo corpus, half an hour on RAVDESS.

# %%
import functools

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ser_utils.evaluation.metrics import compare_paired, per_class, score_predictions
from ser_utils.evaluation.splits import audit_leakage, leaks_beyond, make_all_folds
from ser_utils.features.frames import frame_store
from ser_utils.figures import networks, spectrograms, style
from ser_utils.profiles import settings, settings_table
from ser_utils.systems import feature_network
from ser_utils.training.folds import ClipBatches, FoldTask, averaged, clip_scale, run_folds, save_result
from ser_utils.workspace import Workspace

# %% tags=["parameters"]
dataset = "demo"  # a corpus, several joined by "+", or a path to your own table
profile = "quick"  # smoke, quick or paper
seed = 0
root = ""  # where everything is written; empty: the repository
scale = ""  # training, corpus, utterance: what features are normalised by; empty: the profile's

# %%
workspace = Workspace(dataset, profile, seed, root)
chosen = settings("feature_network", profile)
scale = scale or chosen["scale"]
style.set_style()
settings_table("feature_network")

# %%
utterances = workspace.load_table("utterances")
about = utterances.groupby("corpus").agg(utterances=("utterance_id", "count"), speakers=("speaker", "nunique"),
                                         hours=("duration_s", lambda s: s.sum() / 3600))  # fmt: skip
about.join(
    utterances.pivot_table(index="corpus", columns="emotion", values="path", aggfunc="count", fill_value=0)
).round(2)

# %% [markdown]
# ## Two kinds of frames
#
# Both start from the same log-mel spectrum, at one rate for all corpora and without the silence around the voice. MFCC
# are its cosine transform, which sorts it by how fast it changes over frequency: the first forty say almost all of it.
# Log-mel is measured against each clip's maximum; MFCC come with the energy of each frame in dB of full scale.

# %%
grid = {key: chosen[key] for key in ("n_mels", "n_fft", "hop_length", "n_mfcc", "deltas", "trim_db")}
folder = workspace.folder("features", "feature_network")
stores = {
    kind: frame_store(folder / kind, utterances, grid | {"kind": kind}, sample_rate_hz=chosen["sample_rate_hz"])
    for kind in ("log_mel", "mfcc")
}  # fmt: skip
for kind, store in stores.items():
    assert np.isfinite(store.array[:: len(store.array) // 1000 + 1]).all()
    print(f"{kind}: {len(store.array)} frames of {store.array.shape[1]} features")

# %%
lengths = stores["log_mel"].table["n_rows"].to_numpy()


def padded_share(batch_size, shuffle):
    batches = ClipBatches(
        [np.empty((n, 0), "float32") for n in lengths], batch_size=batch_size, shuffle=shuffle
    )
    return sum(len(batch) * lengths[batch].max() for batch in batches.batches) / lengths.sum() - 1


anyhow = np.random.default_rng(seed).permutation(len(lengths))
at_random = sum(
    len(part) * lengths[part].max()
    for part in np.array_split(anyhow, -(-len(anyhow) // chosen["batch_size"]))
)
print(f"frames that are padding: {at_random / lengths.sum() - 1:.0%} more in batches dealt at random, "
      f"{padded_share(chosen['batch_size'], True):.0%} in batches of like lengths")  # fmt: skip

# %% [markdown]
# ## The folds, and what leaks between them
#
# The study says nothing about its split: `paper` is a stratified 80/20, which knows every test speaker. `speaker` does
# not: one fold per group of speakers held out. A table without texts, or of one speaker, goes without `sentence`, or
# without `speaker`; `utterance` is then the strictest one.

# %%
system = "feature_network"
folds, impossible = make_all_folds(utterances, None, chosen["protocols"], system=system, seed=seed)
for protocol, why in impossible.items():
    print(f"{protocol} is left out: {why}")
strictest = "speaker" if "speaker" in folds else "utterance"
fit = {"scaler": "all" if scale == "speaker" else "train", "augmentation": "train", "selection": "validation"}
audits, rows, learned = {}, [], {}
for protocol in folds:
    name = folds[protocol].attrs["folds"]
    workspace.save_folds(folds[protocol], system=system, protocol=protocol, folds=name)
    n_models = folds[protocol]["fold"].nunique()
    learned[protocol] = (folds[protocol]["role"] == "train").sum() / n_models / len(utterances)
    audits[protocol] = audit_leakage(folds[protocol], utterances, fit=fit)
    rows.append({"protocol": protocol, "folds": name, "models": n_models, "clips learned from": f"{learned[protocol]:.0%}",
                 "leaks beyond its promise": leaks_beyond(audits[protocol], protocol),
                 "notes": "; ".join(folds[protocol].attrs["notes"])})  # fmt: skip
pd.DataFrame(rows)

# %% [markdown]
# ## The networks
#
# Four blocks of convolution, batch norm, ReLU and pooling see frames × features as a picture. What they leave of time is
# summed up by attention: weights $a_t \propto \exp(v^\top \tanh(W x_t + b))$, then the weighted mean and standard deviation.
# The BiLSTM reads the steps in both directions before that. Padding is masked throughout and changes no prediction.

# %%
sizes = {"filters": tuple(chosen["filters"]), "dropout": chosen["dropout"]}
builders = {
    "deep_cnn": functools.partial(feature_network.deep_cnn, **sizes),
    "cnn_bilstm": functools.partial(feature_network.cnn_bilstm, units=chosen["units"], **sizes),
}
drawn = [build(utterances["emotion"].nunique(), chosen["n_mels"]) for build in builders.values()]
figure = networks.architecture(*drawn, names=["deep CNN", "CNN–BiLSTM"])
style.save_figure(workspace, figure, "05_architecture", "Both networks for log-mel, drawn from the models.")
plt.show()

# %% [markdown]
# ## Training
#
# AdamW under one cycle of the learning rate, label smoothing, class weights, and SpecAugment masks at the training mean;
# the weights of the best validation UAR are kept. Validation speakers come from training. A batch of eight clips
# costs hardly more per clip than one of 32, and teaches a small corpus four times as often; corpora of few clips are
# gone through more often still, until `least_updates` steps are made.

# %%
options = {key: chosen[key] for key in ("batch_size", "epochs", "patience", "least_updates", "learning_rate", "weight_decay",
                                        "label_smoothing", "mask_bands", "mask_frames")}  # fmt: skip
options |= {"scale": scale, "one_cycle": True, "resized_frames": 0}


def tasks_of(name, protocol, network, kind, **changes):
    return [
        FoldTask(f"feature_network-{name}-{protocol}-{fold}", builders[network], stores[kind].folder, rows,
                 options | changes, workspace.folder("models"), seed)
        for fold, rows in folds[protocol].groupby("fold")
    ]  # fmt: skip


# %%
four = {f"{network}_{kind}": (network, kind) for network in builders for kind in stores}
plan = {
    (name, protocol): tasks_of(name, protocol, *about)
    for name, about in four.items()
    for protocol in folds
    if protocol == strictest or name in chosen["everywhere"]
}
by_speaker = "deep_cnn_log_mel_by_speaker", strictest
plan[by_speaker] = tasks_of(*by_speaker, "deep_cnn", "log_mel", scale="speaker")
results = run_folds(plan, title="feature_network")

# %% [markdown]
# The four networks read two pictures of one sound in two ways: their mistakes differ, and the mean of their probabilities
# is a fifth model that costs no training, `all_four`. The one `by_speaker` is normalised over all of a speaker's clips,
# test clips included. It uses no label, but it presumes that whoever is to be recognised has spoken before; the audit
# lists it as statistics fitted on test.

# %%
results["all_four", strictest] = averaged([results[name, strictest] for name in four])
for (model, protocol), result in results.items():
    audit = audits[protocol]
    if (model, protocol) == by_speaker:
        audit = audit_leakage(folds[protocol], utterances, fit=fit | {"scaler": "all"})
    name = {"model": model, "protocol": protocol, "folds": folds[protocol].attrs["folds"]}
    save_result(workspace, result, audit, system="feature_network", **name)


# %%
def score_row(model, protocol, result):
    measured = score_predictions(result["predictions"])
    keys = ("uar", "uar_low", "uar_high", "uar_fold_mean", "accuracy", "macro_f1")
    cost = {"weights": result["parameters"], "seconds": result["seconds_to_train"]}
    return {"model": model, "protocol": protocol, **{key: measured[key] for key in keys}, **cost}


scores = pd.DataFrame([score_row(*key, result) for key, result in results.items()])
workspace.save_table(scores, "feature_network_scores")
scores.round(3)

# %%
chance = 1 / utterances["emotion"].nunique()
figure = spectrograms.scores(scores, chance=chance)
style.save_figure(
    workspace,
    figure,
    "05_scores",
    "UAR of the MFCC and log-mel networks under each protocol, 95 % intervals over speakers.",
)
plt.show()

# %% [markdown]
# One network under each protocol, beside the share of all clips that it learned from: a difference mixes what was known
# of the voices, the amount of data, and chance.

# %%
same = scores[scores["model"] == chosen["everywhere"][0]].set_index("protocol")
same.assign(learned_from=pd.Series(learned))[["learned_from", "uar", "uar_low", "uar_high"]].round(3)

# %% [markdown]
# The study's best figure, 79.41 % accuracy, belongs to wav2vec 2.0 (notebook 08) under a split it does not state; it
# prints none for these networks alone.
#
# ## Which of two is better?

# %%
PAIRS = {
    "log-mel against MFCC, deep CNN": ("deep_cnn_log_mel", "deep_cnn_mfcc"),
    "log-mel against MFCC, CNN–BiLSTM": ("cnn_bilstm_log_mel", "cnn_bilstm_mfcc"),
    "CNN–BiLSTM against deep CNN, log-mel": ("cnn_bilstm_log_mel", "deep_cnn_log_mel"),
    "all four against one, deep CNN on log-mel": ("all_four", "deep_cnn_log_mel"),
    "known speakers' statistics, log-mel": ("deep_cnn_log_mel_by_speaker", "deep_cnn_log_mel"),
}
rows = []
for question, pair in PAIRS.items():
    tested = compare_paired(*(results[model, strictest]["predictions"] for model in pair), seed=seed)
    rows.append(
        {
            "question": question,
            **{key: tested[key] for key in ("difference", "low", "high", "p", "n_speakers")},
        }
    )
pd.DataFrame(rows).set_index("question").round(3)

# %% [markdown]
# Differences of UAR on the same clips under the strictest protocol, speakers resampled; p exchanges the two answers
# speaker by speaker.
#
# ## Learning, and what is confused

# %%
first = {
    model: result["histories"][0]
    for (model, protocol), result in results.items()
    if protocol == strictest and result["histories"]
}
kept = {model: int(history["val_uar"].argmax()) + 1 for model, history in first.items()}
figure = networks.learning_curves(first, values=("loss", "uar"), kept=kept)
style.save_figure(
    workspace, figure, "05_learning", f"Training and validation of the first fold of protocol {strictest}."
)
plt.show()

# %%
own = scores[(scores["protocol"] == strictest) & ~scores["model"].str.endswith("by_speaker")]
best = own.loc[own["uar"].idxmax(), "model"]  # on test, after the fact
predictions = results[best, strictest]["predictions"]
figure = networks.confusion_matrix(
    predictions["emotion"], predictions["prediction"], title=f"{best}, protocol {strictest}"
)
caption = (
    f"Confusions of {best}, protocol {strictest}: the best of {len(own)} on test, chosen after the fact."
)
style.save_figure(workspace, figure, "05_confusion", caption)
plt.show()
print(caption)
per_class(predictions["emotion"], predictions["prediction"]).round(2)

# %% [markdown]
# This network is shown because it was highest on these very clips, so its figures lean upwards.
#
# ## What the attention looks at
#
# One test clip of each emotion that the CNN–BiLSTM recognises in the first fold of that protocol: its log-mel, and the
# weight of each step of time in the decision.

# %%
log_mel = stores["log_mel"]
result = results["cnn_bilstm_log_mel", strictest]
model = keras.saving.load_model(result["paths"][0], safe_mode=True)
first_fold = folds[strictest].query("fold == 0")
table = log_mel.table[log_mel.table["utterance_id"].isin(first_fold["utterance_id"])].reset_index(drop=True)
training = table["utterance_id"].isin(first_fold.query("role == 'train'")["utterance_id"])
clips = [log_mel.of(name) for name in table["utterance_id"]]
mean, spread = clip_scale(clips, table, scale, training)

# %%
STEP_FRAMES = 8  # frames of one step of `attention_over_time`
asked = result["predictions"].query("fold == 0")
right = asked.query("emotion == prediction").drop_duplicates("emotion")
never = style.in_order(set(asked["emotion"]) - set(right["emotion"]))
step_ms = 1000 * STEP_FRAMES * chosen["hop_length"] / chosen["sample_rate_hz"]
print(f"steps of {step_ms:.0f} ms; never recognised there, so not shown: {', '.join(never) or 'none'}")
rows = [table.index[table["utterance_id"] == name][0] for name in right["utterance_id"]]
weights = []
for row in rows:
    scaled = ((clips[row] - mean[row]) / spread[row])[None].astype("float32")
    weights.append(
        feature_network.attention_over_time(model, scaled, np.array([scaled.shape[1]], "int32"))[0]
    )
if rows:
    figure = spectrograms.attention([clips[row] for row in rows], weights, list(right["emotion"]), chosen["sample_rate_hz"],
                                    hop_length=chosen["hop_length"], step_frames=STEP_FRAMES)  # fmt: skip
    style.save_figure(
        workspace,
        figure,
        "05_attention",
        "Attention of the CNN–BiLSTM over one clip per emotion it recognises.",
    )
    plt.show()

# %% [markdown]
# ## Several corpora

# %%
of_corpus = predictions.merge(utterances[["utterance_id", "corpus"]])
pooled = pd.DataFrame({corpus: score_predictions(rows) for corpus, rows in of_corpus.groupby("corpus")}).T
pooled[["n_speakers", "n_utterances", "uar", "uar_low", "uar_high", "accuracy"]]

# %% [markdown]
# The scores of the network that was best on test, again chosen after the fact, corpus by corpus: trained on all corpora
# given and tested, under the strictest protocol, on each. With `dataset="ravdess+emodb+aesdd"` that is the harmonised
# mix; notebook 11 has train-on-one, test-on-another.

# %%
workspace.record("05", utterances, chosen | {"scale": scale})
scores.set_index(["model", "protocol"])[["uar", "uar_low", "uar_high"]].round(3)

# %% [markdown]
# Saved: the predictions, audits and costs of every model and protocol; notebook 11 sets them beside the other systems, 09
# explains such networks.
