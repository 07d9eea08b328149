# ---
# jupyter:
#   graph:
#     reads: ["00"]
#     settings: [sigwavnet, cnn_n_gru]
#     files: [search]
# ---

# %% [markdown]
# # 07 · SigWavNet: wavelets learned from the waveform
#
# **Question.** SigWavNet learns its own octave bands from the raw waveform. What does it listen to, and how much of its
# published score is left when the speakers are new?
#
# **Reads** the utterance table of 00, and the trials of `make search` where there are any. **Writes** predictions of
# the systems `sigwavnet` and `cnn_n_gru` under the protocols `paper` and `speaker`.
#
# **Reproduces** SigWavNet (arXiv 2502.00310) and its predecessor CNN-n-GRU. **Run time** on two cores, profile `quick`: a
# minute or two on the demo corpus, about an hour on EmoDB, an hour and a half on RAVDESS. `quick` trains a small SigWavNet, and
# CNN-18-GRU at its published width for fewer epochs (CNN-5-GRU on joined corpora and, narrower, on the demo corpus). Profile
# `paper` follows the published recipe of both.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

from ser_utils.evaluation.metrics import per_class, score_predictions
from ser_utils.figures import networks, style
from ser_utils.profiles import settings, settings_table
from ser_utils.systems import study
from ser_utils.systems.sigwavnet import accelerator
from ser_utils.systems.sigwavnet import figures as wavelets
from ser_utils.systems.sigwavnet.recipe import monitoring
from ser_utils.systems.sigwavnet.search import read_trials, searched_model
from ser_utils.systems.sigwavnet.training import waveform_models, waveform_store
from ser_utils.systems.sigwavnet.wavelet import SigWavNet
from ser_utils.training.fit import best_epoch
from ser_utils.workspace import REPOSITORY, Workspace, read_json

# %% tags=["parameters"]
dataset = "demo"  # a corpus, several joined by "+", or a path to your own table
profile = "quick"  # smoke, quick or paper
seed = 0
root = ""  # where everything is written; empty: the repository

# %%
workspace = Workspace(dataset, profile, seed, root)
SYSTEMS = ("sigwavnet", "cnn_n_gru")
chosen = {system: settings(system, profile, dataset) for system in SYSTEMS}
style.set_style()
display(settings_table("sigwavnet"), settings_table("cnn_n_gru"))

# %% [markdown]
# `make search` tries settings of both systems. It compares them on the validation speakers of the first fold of `speaker`. If
# there was a search, the figure shows its trials, and this notebook trains one more network, `searched`, with the settings of
# the best. Other folds test the speakers of that validation, so the score of `searched` owes a little to that look.

# %%
for system in SYSTEMS:
    trials = read_trials(workspace, system)
    print(f"{system}: {len(trials) or 'no'} trials of a search")
    if len(trials):
        figure = wavelets.search_trials(trials)
        style.save_figure(workspace, figure, f"07_search_{system}", f"Trials of the search for {system}.")
        plt.show()
        display(trials.head(10).round(4))

# %% [markdown]
# ## Waveforms, whole
#
# Clips are not cut into segments. Clips of similar length share a batch, and padding is masked, so that it changes no answer.
# The waveform is standardised by the mean and deviation of the training part.

# %%
utterances = workspace.load_table("utterances")
folder = workspace.folder("features", "waveforms")
stores = {system: waveform_store(folder / system, utterances, chosen[system]) for system in SYSTEMS}
rate = chosen["sigwavnet"]["sample_rate_hz"]
lengths = stores["sigwavnet"].table["n_rows"] / rate
print(f"{len(lengths)} clips of {lengths.min():.1f} to {lengths.max():.1f} s at {rate} Hz")
assert np.isfinite(stores["sigwavnet"].array[::97]).all()

# %% [markdown]
# ## The folds
#
# As published, clips are split at random: 90/10 with ten folds inside for SigWavNet, and 80/10/10 for CNN-n-GRU. Every speaker
# is on both sides of this split; `speaker` keeps them apart. The epoch is chosen on validation clips in both. If the table has
# only one speaker, there is no `speaker`, and the figures below show `paper`.


# %%
folds = {system: study.make_system_folds(workspace, utterances, system, chosen[system]) for system in SYSTEMS}
strictest = "speaker" if "speaker" in folds["sigwavnet"] else "paper"
pd.concat({system: study.describe_folds(folds[system], utterances) for system in SYSTEMS}).round(2)

# %% [markdown]
# ## Training
#
# The loss of SigWavNet is the focal loss $-w_y (1 - p_y)^2 \log p_y$ of each clip, where $w_y$ is the weight of its class.
# Profile `smoke` leaves these weights out, because every split has its own, and each is another network to compile. The
# reference applies the focal term to the mean cross-entropy of the batch, so that easy clips hide hard ones. Here, each fold
# trains a new network. The reference goes on training one network through all folds, and carries the GRU's state from batch to
# batch.
#
# CNN-n-GRU is trained with plain cross-entropy, without class weights, and the epoch with the lowest validation loss is kept.
# Weight decay is added to the gradient, as in PyTorch's Adam, but not in Keras's.

# %%
results = {}
for system in SYSTEMS:
    models = waveform_models(workspace, system, stores[system], chosen[system])
    models |= searched_model(workspace, system, models["network"])
    trained = study.train_models(workspace, utterances, folds[system], models, title=system)
    results |= {(system, *key): result for key, result in trained.items()}

# %%
for key, result in results.items():
    epochs = sum(len(history) for history in result["histories"])
    print(
        f"{' '.join(key)}: {result['parameters']:,} weights, {result['seconds_to_train'] / epochs:.1f} s an epoch, "
        f"{result['ms_per_utterance']:.0f} ms a clip"
    )

# %%
histories = {" ".join(key): result["histories"][0] for key, result in results.items()}
kept = {name: best_epoch(history, **monitoring(chosen[name.split()[0]])) for name, history in histories.items()}
figure = networks.learning_curves(histories, values=("loss", "uar"), kept=kept)
style.save_figure(workspace, figure, "07_training", "Learning curves of each network's first fold.")
plt.show()

# %% [markdown]
# Dots mark the epochs whose weights were kept. The gap between the thin line (training) and the thick line (validation) shows
# overfitting.
#
# ## Scores
#
# The published accuracies come from protocol `paper`, on the seven classes of EmoDB and on RAVDESS, at the published size.
# CNN-n-GRU averages over time before its GRU, so that the GRU sees a single step. `over_time` is the same network with a GRU
# that sees the whole sequence. `searched` has the settings that a search found.


# %%
def score_row(system, model, protocol):
    measured = score_predictions(results[system, model, protocol]["predictions"])
    keys = ("uar", "uar_low", "uar_high", "accuracy", "macro_f1")
    return {"system": system, "model": model, "protocol": protocol, **{key: measured[key] for key in keys}}


PUBLISHED = {"sigwavnet": "EmoDB 90.1 %", "cnn_n_gru": "RAVDESS 86.6 %, n = 18"}
scores = pd.DataFrame([score_row(*key) for key in results])
of_paper = (scores["protocol"] == "paper") & (scores["model"] == "network")
scores.insert(3, "published accuracy", scores["system"].map(PUBLISHED).where(of_paper, ""))
workspace.save_table(scores, "sigwavnet_scores")
scores.round(3)

# %%
predictions = results["sigwavnet", "network", strictest]["predictions"]
truth, prediction = predictions["emotion"], predictions["prediction"]
figure = networks.confusion_matrix(truth, prediction, title=f"SigWavNet, protocol {strictest}")
style.save_figure(workspace, figure, "07_confusion", f"Confusions of SigWavNet under protocol {strictest}.")
plt.show()

# %%
present = style.in_order(truth)
figure = wavelets.class_scores(per_class(truth, prediction))
style.save_figure(workspace, figure, "07_classes", f"Precision, recall and F1 of SigWavNet under protocol {strictest}.")
plt.show()

# %% [markdown]
# As published, SigWavNet cannot be confident. Its head brings the outputs of each class to mean 0 and variance 1 and averages
# their leaky ReLU, so that every logit lies between 0 and 0.495. Its probabilities can rank the classes, but they cannot say
# how sure it is.

# %%
highest = predictions.filter(regex="^p_").max(axis=1)
limit = 1 / (1 + (len(present) - 1) * np.exp(-0.495))
print(
    f"highest probability of a clip: {highest.min():.3f} to {highest.max():.3f}; chance {1 / len(present):.3f}, "
    f"the most that is possible {limit:.3f}"
)

# %% [markdown]
# ## CNN-n-GRU at its published sizes
#
# The published recipe trains on whole clips for 50 to 100 epochs (here 60), which takes too long on a laptop. We ran it once on
# an accelerator for EmoDB and RAVDESS, with all splits and folds of one network in parallel (`tools/elsewhere.py`), for as many
# epochs as the time allowed. Its answers for every test clip are in `results/<dataset>/accelerator`, and `make rescore`
# computes the scores from them. Without these, the cells below show nothing; what their text says is about EmoDB and RAVDESS.

# %%
shipped = REPOSITORY / "results" / workspace.name
trained_elsewhere = (shipped / f"{accelerator.TABLE}.csv").exists()
if trained_elsewhere:
    made = read_json(shipped / "accelerator" / "provenance.json")
    print(f"{made['device']}, Keras {made['packages']['keras']} on JAX {made['packages']['jax']}")
    for name, facts in made["models"].items():
        print(
            f"{name}: {facts['epochs']} of {facts['settings']['epochs']} epochs, {facts['seconds']:.0f} s for "
            f"{facts['trainings']} trainings"
        )
    print("not reached in that time:", ", ".join(made["not_reached"]))
else:
    print(f"No network of {workspace.name} was trained on an accelerator, only those of EmoDB and RAVDESS.")

# %%
sizes = pd.read_csv(shipped / f"{accelerator.TABLE}.csv") if trained_elsewhere else pd.DataFrame()
sizes.drop(columns=["system", "model"], errors="ignore").round(3)

# %% [markdown]
# `accuracy` is the mean and standard deviation over draws or folds. `uar` is the UAR over all their test clips together, with
# a 95 % interval over speakers. `loudness` and `mfcc` are the UAR of these baselines on the same test clips.
#
# **The published 86.6 % are not reached.** On RAVDESS, the accuracy of CNN-18-GRU on the published split is less than half of
# that (`results/ravdess/07_published_sizes.csv`, n = 18, `paper`), although training knows every speaker and sentence of the
# test part. For new speakers, its UAR is about that of loudness alone, and below that of MFCC. The table does not support the
# published claim that 18 is best: 11 is as good within the spread of draws and folds, with a quarter of the weights. But 11 was
# trained for all 60 epochs, and 18 was stopped earlier. On both corpora and under both protocols, 11 and 18 have a higher UAR
# than 5, which was also stopped earlier. These differences are not tested. For new speakers of RAVDESS, the UAR of 5 and 3 is
# nearly the same.
#
# On EmoDB, SigWavNet with its published 128 channels stays far below its published 90.1 %, see
# `results/emodb/07_published_sigwavnet.csv` (five of ten folds, 37 of 100 epochs). It fits every training clip, but it
# recognises only 58 % of the test clips, of four emotions.

# %%
for row in sizes.itertuples():
    beaten = [name for name in accelerator.BESIDE if row.uar < getattr(row, name)]
    verdict = f"below {' and '.join(beaten)}" if beaten else "above both baselines"
    if "loudness" not in beaten and row.uar_low < row.loudness:
        verdict += ", and not surely above loudness"
    print(f"n = {row.n:2d}, {row.protocol}: UAR {100 * row.uar:.1f} %, {verdict}")

# %%
if trained_elsewhere:
    epochs = accelerator.read_histories(shipped / "accelerator")
    means = epochs.groupby(["protocol", "model", "epoch"]).mean(numeric_only=True).reset_index("epoch")
    for protocol, name in {"paper": "07_published_sizes", "speaker": "07_published_sizes_speaker"}.items():
        curves = {f"n = {n}": means.loc[(protocol, f"n_{n}")].reset_index(drop=True) for n in sorted(set(sizes["n"]))}
        figure = networks.learning_curves(curves, values=("loss", "uar"))
        caption = f"CNN-n-GRU at its published sizes under `{protocol}`: mean learning curves over draws or folds."
        style.save_figure(workspace, figure, name, caption)
        plt.show()

# %% [markdown]
# The first figure shows the published split, the second new speakers. The learning rate falls to a tenth after 20 epochs. Until
# then, the validation score of the networks with n = 11 and 18 jumps up and down; when the rate falls, it rises at once. After
# that, the training score rises further, and the validation score hardly does. On RAVDESS, it stays far below: the deeper
# networks fit their training clips and learn little that holds for other clips. On EmoDB, with four emotions, it stays high.
#
# The table holds precision, recall and F1 of every emotion, and the figures the confusions for new speakers. All draws or folds
# of a network count together.

# %%
decided = accelerator.read_decisions(shipped / "accelerator") if trained_elsewhere else {}
by_size = {
    f"n = {n}, {protocol}": per_class(rows["emotion"], rows["prediction"]) for (n, protocol), rows in decided.items()
}
for (n, protocol), rows in decided.items():
    if protocol == "speaker":
        title = f"CNN-{n}-GRU, new speakers"
        figure = networks.confusion_matrix(rows["emotion"], rows["prediction"], title=title)
        style.save_figure(workspace, figure, f"07_published_confusion_{n}", f"Confusions of {title}.")
        plt.show()
pd.concat(by_size, axis=1).T.round(2) if by_size else None

# %% [markdown]
# ## What became of the wavelets
#
# The figure shows the kernels of each level and their gain, before training (thin) and after it (thick). At the start, the
# kernels are those of Daubechies, and the filter bank reconstructs its signal perfectly: $|L(f)|^2 + |H(f)|^2 = 2$ (no
# distortion) and $L(f)\,L^*(f + ½) + H(f)\,H^*(f + ½) = 0$ (no aliasing). Training does not enforce the first condition. The
# second always holds if one kernel makes both filters (`CQF`, `PerLayer`), and both filters then change together.


# %%
def as_arrays(filters):
    return [tuple(np.asarray(kernel) for kernel in pair) for pair in filters]


model = keras.saving.load_model(results["sigwavnet", "network", strictest]["paths"][0])
untrained = SigWavNet.from_config(model.get_config())
untrained.build()
before, after = (as_arrays(network.transform.filters()) for network in (untrained, model))
figure = wavelets.kernels(before, after, rate)
style.save_figure(workspace, figure, "07_kernels", "Wavelet kernels and gains before and after training.")
plt.show()

# %%
table = wavelets.filter_table(before, after).round(4)
table if model.transform.constraint == "PerFilter" else table[["distortion", "low-pass moved"]]

# %% [markdown]
# Distortion and aliasing are the largest deviations from the two conditions, and 0 for a perfect filter bank. "Moved" is the
# length of the change relative to the length of the kernel. Aliasing and the high-pass are listed only if kernels are free
# (`PerFilter`).
#
# ## Thresholds and bands


# %%
def look(utterance_id):
    waveform = np.asarray(stores["sigwavnet"].of(utterance_id))
    inside = model.look_inside(waveform[None])
    flat = {
        name: [np.asarray(band)[0, :, 0] for band in inside[name]]
        for name in ("details", "thresholded", "spatial", "temporal")
    }
    return waveform, flat | {"approximation": np.asarray(inside["approximation"])[0, :, 0]}


# only this network's own test clips: it learned from those of other folds
tested = results["sigwavnet", "network", strictest]["predictions"].query("fold == fold.min()")["utterance_id"]
shown = utterances[utterances["utterance_id"].isin(tested)].drop_duplicates("emotion")
inside = {row.emotion: look(row.utterance_id) for row in shown.itertuples()}

# %%
details = [np.concatenate(level) for level in zip(*(parts["details"] for _, parts in inside.values()), strict=True)]
figure = wavelets.thresholds(model.thresholds, details)
style.save_figure(workspace, figure, "07_thresholds", "Learned asymmetric thresholds over the coefficients.")
plt.show()

# %% [markdown]
# Grey shows how often a coefficient has that size in the clips below; red shows what the threshold lets through.

# %%
examples = {
    emotion: (waveform, [*parts["thresholded"], parts["approximation"]])
    for emotion, (waveform, parts) in inside.items()
}
figure = wavelets.bands(examples, rate)
style.save_figure(workspace, figure, "07_bands", "Bands of one test utterance per emotion, after thresholding.")
plt.show()

# %% [markdown]
# ## Where it listens
#
# Spatial attention weighs the outputs of the convolutions, and temporal attention the states of the BiGRU. Red is more than an
# even share, blue is less. Attention is a weight inside the network, not yet an explanation: notebooks 09 and 10 test that.

# %%
emotion, (waveform, parts) = next(iter(inside.items()))
figure = wavelets.band_attention(waveform, parts["spatial"], parts["temporal"], rate)
style.save_figure(workspace, figure, "07_attention", f"Both attentions over one test utterance ({emotion}).")
plt.show()

# %%
used = {f"{system}.{name}": value for system in SYSTEMS for name, value in chosen[system].items()}
workspace.record("07", utterances, used)
scores.set_index(["system", "model", "protocol"])[["uar", "uar_low", "uar_high"]].round(3)

# %% [markdown]
# The notebook saved predictions, folds, audits and costs of both systems. Notebook 11 compares them with the others.
