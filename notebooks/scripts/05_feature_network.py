# ---
# jupyter:
#   graph:
#     reads: ["00"]
#     settings: [feature_network]
# ---

# %% [markdown]
# # 05 · MFCC and log-mel networks, on one corpus or several
#
# **Question.** MFCC or log-mel, a deep CNN or a CNN with a BiLSTM and attention: which one recognises the emotions of
# speakers it has never heard? And how much of a score comes from knowing the speakers?
#
# **Reads** the utterance table of 00. **Writes** the predictions of the system `feature_network` under every protocol.
#
# **Reproduces** the networks of the multi-corpus study (RAVDESS, TESS, SAVEE, CREMA-D): a CNN of four blocks and a
# CNN–BiLSTM with attention, on 40 MFCC with energy and on log-mel. **Run time** on two cores, profile `quick`: about one
# minute on the demo corpus, half an hour on RAVDESS.

# %%
import dataclasses

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ser_utils.evaluation import across
from ser_utils.evaluation.metrics import compare_paired, per_class, score_predictions
from ser_utils.figures import networks, spectrograms, style
from ser_utils.profiles import settings, settings_table
from ser_utils.systems import crossing, feature_network, study
from ser_utils.training.folds import ClipBatches, averaged, fold_data, tasks_of
from ser_utils.workspace import Workspace

# %% tags=["parameters"]
dataset = "demo"  # a corpus, several joined by "+", or a path to your own table
profile = "quick"  # smoke, quick or paper
seed = 0
root = ""  # where everything is written; empty: the repository
scale = ""  # training, corpus, utterance: what features are normalised by; empty: the profile's

# %%
workspace = Workspace(dataset, profile, seed, root)
chosen = settings("feature_network", profile, dataset)
chosen["scale"] = scale or chosen["scale"]
style.set_style()
settings_table("feature_network")

# %%
utterances = workspace.load_table("utterances")
utterances.pivot_table(index="corpus", columns="emotion", values="path", aggfunc="count", fill_value=0)

# %%
utterances.groupby("corpus").agg(
    utterances=("utterance_id", "count"), speakers=("speaker", "nunique"), seconds=("duration_s", "sum")
).round()

# %% [markdown]
# ## Two kinds of frames
#
# Both start from the same log-mel spectrum, at one sample rate for all corpora and without the silence before and after the
# voice. MFCC are the cosine transform of this spectrum. They sort it by how fast it changes over frequency, and the first forty
# coefficients hold almost all of it. Log-mel is relative to the maximum of each clip. To the MFCC we add the energy of each
# frame, in dB of full scale.

# %%
stores = feature_network.frame_stores(workspace, utterances, chosen)
for kind, store in stores.items():
    assert np.isfinite(store.array[:: len(store.array) // 1000 + 1]).all()
    print(f"{kind}: {len(store.array)} frames of {store.array.shape[1]} features")

# %% [markdown]
# Clips differ in length, and a batch is padded to its longest clip. Batches of clips of similar length need less padding than
# random batches:

# %%
lengths = stores["log_mel"].table["n_rows"].to_numpy()
empty = [np.empty((n, 0)) for n in lengths]
batches = ClipBatches(empty, batch_size=chosen["batch_size"], shuffle=True).batches
dealt = np.array_split(np.random.default_rng(seed).permutation(len(lengths)), len(batches))
padded = [sum(len(rows) * lengths[rows].max() for rows in dealing) for dealing in (dealt, batches)]
at_random, alike = np.array(padded) / lengths.sum() - 1
print(f"padding, as a share of the speech: {at_random:.0%} in random batches, {alike:.0%} in batches of like lengths")

# %% [markdown]
# ## The folds
#
# The study does not state its split. `paper` is a stratified 80/20 split, so training knows every test speaker. `speaker`
# tests on speakers that training never heard, with one fold per group of speakers. If the table has no texts, `sentence` is
# left out. If it has only one speaker, `speaker` is left out, and `utterance` is the strictest protocol.

# %%
folds = study.make_system_folds(workspace, utterances, "feature_network", chosen)
strictest = study.strictest(folds)
study.describe_folds(folds, utterances).round(2)

# %% [markdown]
# ## The networks
#
# Four blocks of convolution, batch norm, ReLU and pooling treat frames × features as an image. Attention then summarises the
# remaining time steps: it weighs each step by $a_t \propto \exp(v^\top \tanh(W x_t + b))$ and computes the weighted mean and
# standard deviation. In the second network, a BiLSTM first reads the steps in both directions. Padding is masked everywhere and
# changes no prediction.

# %%
drawn = [
    build(utterances["emotion"].nunique(), chosen["n_mels"]) for build in feature_network.networks_of(chosen).values()
]
figure = networks.architecture(*drawn, names=["deep CNN", "CNN–BiLSTM"])
style.save_figure(workspace, figure, "05_architecture", "Both networks for log-mel, drawn from the models.")
plt.show()

# %% [markdown]
# ## Training
#
# The optimiser is AdamW with one cycle of the learning rate. Training uses label smoothing, class weights and SpecAugment
# masks, which are filled with the training mean. Validation clips are taken from the training part, and the weights with the
# best UAR on them are kept. A batch of eight clips costs little more per clip than a batch of 32, and gives a small corpus four
# times as many steps. With few clips, training takes more epochs, until it has made `least_updates` steps.

# %%
models = feature_network.models_of(workspace, stores, chosen)
results = study.train_models(
    workspace, utterances, folds, models, main=strictest, elsewhere=chosen["everywhere"], title="feature_network"
)
print(f"{len(results)} models, {sum(len(result['paths']) for result in results.values())} networks")

# %% [markdown]
# Two of the models need an explanation. `all_four` is the mean of the four networks' probabilities. It needs no training of its
# own. Notebook 11 tests whether it is better than the deep CNN alone. `by_speaker` scales features by the mean and deviation of
# all clips of a speaker, including the test clips. It uses no label, but it needs other recordings of that speaker, so the
# audit lists it as a scaler fitted on test clips.

# %%
four = [results[name, strictest] for name in models if name != feature_network.BY_SPEAKER]
results["all_four", strictest] = study.save_audited(
    workspace, utterances, folds[strictest], averaged(four), model="all_four"
)
scores = study.score_results(results)
workspace.save_table(scores, "feature_network_scores")
scores.round(3)

# %%
chance = 1 / utterances["emotion"].nunique()
figure = spectrograms.scores(scores, chance=chance)
caption = "UAR of the MFCC and log-mel networks under each protocol, 95 % intervals over speakers."
style.save_figure(workspace, figure, "05_scores", caption)
plt.show()

# %% [markdown]
# The table shows one network under each protocol, with the share of all clips that it learned from. Three things differ from
# row to row: what training knew about the voices, how many clips it had, and chance.

# %%
same = scores[scores["model"] == chosen["everywhere"][0]].set_index("protocol")
same.join(study.describe_folds(folds, utterances)["learned_from"])[
    ["learned_from", "uar", "uar_low", "uar_high"]
].round(3)

# %% [markdown]
# The best result of the study, an accuracy of 79.41 %, was obtained with wav2vec 2.0 (notebook 08). The study does not report
# these networks separately.
#
# ## Which of two is better?

# %%
PAIRS = {
    "log-mel against MFCC, deep CNN": ("deep_cnn_log_mel", "deep_cnn_mfcc"),
    "log-mel against MFCC, CNN–BiLSTM": ("cnn_bilstm_log_mel", "cnn_bilstm_mfcc"),
    "CNN–BiLSTM against deep CNN, log-mel": ("cnn_bilstm_log_mel", "deep_cnn_log_mel"),
    "all four against one, deep CNN on log-mel": ("all_four", "deep_cnn_log_mel"),
    "known speakers' statistics, log-mel": (feature_network.BY_SPEAKER, "deep_cnn_log_mel"),
}
tested = {
    question: compare_paired(*(results[model, strictest]["predictions"] for model in pair), seed=seed)
    for question, pair in PAIRS.items()
}
pd.DataFrame(tested).T[["difference", "low", "high", "p", "n_speakers"]].astype(float).round(3)

# %% [markdown]
# The table shows differences of UAR on the same clips under the strictest protocol. The intervals are over speakers. The test
# behind p exchanges the answers of the two models speaker by speaker.
#
# ## Learning, and what is confused

# %%
histories, kept = study.first_histories(results, strictest)
figure = networks.learning_curves(histories, values=("loss", "uar"), kept=kept)
caption = f"Training and validation of the first fold of protocol {strictest}."
style.save_figure(workspace, figure, "05_learning", caption)
plt.show()

# %%
compared = scores[(scores["protocol"] == strictest) & (scores["model"] != feature_network.BY_SPEAKER)]
best = compared.loc[compared["uar"].idxmax(), "model"]
predictions = results[best, strictest]["predictions"]
figure = networks.confusion_matrix(
    predictions["emotion"], predictions["prediction"], title=f"{best}, protocol {strictest}"
)
caption = f"Confusions of {best}, protocol {strictest}: the best of {len(compared)} on these test clips."
style.save_figure(workspace, figure, "05_confusion", caption)
plt.show()
per_class(predictions["emotion"], predictions["prediction"]).round(2)

# %% [markdown]
# This model was chosen because it scored highest on these very clips, so its scores are slightly too good.
#
# ## What the attention looks at
#
# The figure shows one test clip of each emotion that the CNN–BiLSTM recognises in the first fold of that protocol: its log-mel,
# and the attention weight of each time step.

# %%
result = results["cnn_bilstm_log_mel", strictest]
network = keras.saving.load_model(result["paths"][0], safe_mode=True)
first = tasks_of(models["cnn_bilstm_log_mel"], folds[strictest], strictest)[0]
data = fold_data(first)
recognised = result["predictions"].query("fold == fold.min() and emotion == prediction")

# %%
examples = []
for row in recognised.drop_duplicates("emotion").itertuples():
    i = data.table.index[data.table["utterance_id"] == row.utterance_id][0]
    scaled = ((data.clips[i] - data.scale[0][i]) / data.scale[1][i])[None].astype("float32")
    n_frames = np.array([scaled.shape[1]], "int32")
    weights = feature_network.attention_over_time(network, scaled, n_frames)[0]
    examples.append((data.clips[i], weights, row.emotion))
step_ms = 1000 * feature_network.STEP_FRAMES * chosen["hop_length"] / chosen["sample_rate_hz"]
print(f"{len(examples)} emotions recognised in the first fold, steps of {step_ms:.0f} ms")

# %%
if examples:
    frames, weights, emotions = zip(*examples, strict=True)
    figure = spectrograms.attention(
        frames,
        weights,
        emotions,
        chosen["sample_rate_hz"],
        hop_length=chosen["hop_length"],
        step_frames=feature_network.STEP_FRAMES,
    )
    caption = "Attention of the CNN–BiLSTM over one clip per emotion that it recognises."
    style.save_figure(workspace, figure, "05_attention", caption)
    plt.show()

# %% [markdown]
# ## Several corpora
#
# The table shows the scores of the same model for each corpus. It was trained on all corpora together. With
# `dataset="ravdess+emodb+aesdd"` this is the harmonised mix.

# %%
corpora = predictions.merge(utterances[["utterance_id", "corpus"]]).groupby("corpus")
by_corpus = pd.DataFrame({corpus: score_predictions(rows) for corpus, rows in corpora}).T
by_corpus[["n_speakers", "n_utterances", "uar", "uar_low", "uar_high", "accuracy"]]

# %% [markdown]
# Next, the deep CNN on log-mel is trained on one corpus and tested on another, for all pairs of corpora and with fewer epochs.
# Notebook 11 compares the results with the baselines.

# %%
if utterances["corpus"].nunique() > 1:
    carried = models[chosen["everywhere"][0]]
    carried = dataclasses.replace(
        carried, settings=carried.settings | {"epochs": chosen["crossed_epochs"], "least_updates": 0}
    )
    crossed = crossing.cross_network(
        across.keep_shared(utterances), carried, chosen["everywhere"][0], folds=chosen["crossed_folds"], title="crossed"
    )
    crossing.save_crossed(workspace, crossed, "crossed_network")
    print(f"{len(crossed)} pairs of training and test corpora")

# %%
workspace.record("05", utterances, chosen)
scores.set_index(["model", "protocol"])[["uar", "uar_low", "uar_high"]].round(3)

# %% [markdown]
# The notebook saved the predictions, audits and costs of every model and protocol. Notebook 11 compares them with the other
# systems, and 09 explains one of these networks.
