# ---
# jupyter:
#   graph:
#     reads: ["00"]
#     settings: [prototype]
# ---

# %% [markdown]
# # 01 · An autoencoder that keeps the fine lines
#
# **Question.** Can a small network encode 100 ms of one voice and reconstruct it, with its sharp edges?
#
# **Reads** the utterance table and segments of 00. **Writes** one autoencoder per speaker and protocol, and the table
# `autoencoders`, which lists their files, their scales and their reconstruction errors.
#
# **Reproduces** the prototype paper's encoder, decoder, loss and figure of reconstructions. **Run time** on two cores,
# profile `quick`: two minutes on the demo corpus, a quarter of an hour on EmoDB, half an hour on RAVDESS.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Audio, display

from ser_utils.corpora.loading import common_rate
from ser_utils.evaluation.splits import HOP_MS, SEGMENT_MS, leaks_beyond
from ser_utils.features import spectral as features
from ser_utils.features.audio import save_audio
from ser_utils.figures import networks, speech, style
from ser_utils.profiles import settings, settings_table
from ser_utils.systems.prototype import figures as prototypes
from ser_utils.systems.prototype import published
from ser_utils.systems.prototype.autoencoder import build_autoencoder, edge_strength
from ser_utils.systems.prototype.data import open_data
from ser_utils.systems.prototype.runs import autoencoder_runs, reconstruction_table
from ser_utils.systems.prototype.segments import clearest_segments
from ser_utils.systems.prototype.training import fit_coders
from ser_utils.training.fit import best_epoch
from ser_utils.workspace import REPOSITORY, Workspace, read_json, write_csv

# %% tags=["parameters"]
dataset = "demo"  # a corpus, several joined by "+", or a path to your own table
profile = "quick"  # smoke, quick or paper
seed = 0
root = ""  # where everything is written; empty: the repository
speakers = ""  # ids separated by spaces; empty: those the paper shows, else as many as the profile says
brief = False  # train only what 03 shows, for less time; see `brief` in the table of settings

# %%
workspace = Workspace(dataset, profile, seed, root)
chosen = settings("prototype", profile, "brief" if brief else dataset)
style.set_style()
settings_table("prototype")

# %% [markdown]
# ## Speakers and splits
#
# Each model knows one speaker, because the paper prefers detail to generality. So training and test are split *within* each
# speaker. `paper` assigns overlapping segments at random. `utterance` keeps each recording on one side of the split, and
# `sentence` each text.

# %%
data = open_data(workspace, chosen, speakers=speakers)
rate = common_rate(data.utterances)
data.people

# %%
for protocol, why in data.impossible.items():
    print(f"{protocol} is left out: {why}")
for protocol, folds in data.folds.items():
    print(protocol, folds["role"].value_counts().to_dict(), *folds.attrs["notes"], sep=" · ")
leaks = {protocol: leaks_beyond(data.audit(protocol, ["all"]), protocol) for protocol in data.folds}
pd.Series(leaks, name="leaks that the protocol does not allow").to_frame()

# %% [markdown]
# The random split of overlapping segments leaks in every way: training and test share speakers, texts, recordings and even
# samples. For the other protocols, the table lists what the audit found; *unknown* means that it could not be checked.
#
# ## The network
#
# Five convolutions encode a segment, and their mirror image decodes it. The drawing shows the sizes. The loss is
# $\mathrm{MSE} + \lambda\,\mathrm{HFENN}$ with $\mathrm{HFENN} = \overline{|S(x) - S(\hat x)|}$, where $S$ are the Sobel
# edges. The second term penalises blur.

# %%
shape = data.store.array.shape[1:]
model = build_autoencoder(*shape, filters=chosen["filters"], hfenn_weight=chosen["hfenn_weight"])
figure = networks.architecture(model.encoder, model.decoder, names=["encoder", "decoder"])
style.save_figure(workspace, figure, "01_architecture", "Encoder and decoder of the autoencoder, drawn from the model.")
plt.show()

# %% [markdown]
# ## Training
#
# The paper trains each speaker's autoencoder from random weights, with a constant learning rate and early stopping. Profile
# `paper` does the same. In the other profiles, all autoencoders start from one **shared** autoencoder that was trained on
# other speakers. No model is tested on segments that its shared autoencoder was trained on. A few epochs on the speaker's
# own segments follow. The learning rate rises in the first twentieth of the steps, then falls along a cosine to zero.
#
# Scale and weights are fitted on the training part alone. Protocol `paper` has no validation part, so training is monitored
# on the test part, as published, and its scores are for comparison only. The model of all speakers has no shared start.

# %%
if data.taught_by and chosen["shared"]:
    teachers = {name: " ".join(data.people[name]) for name in dict.fromkeys(data.taught_by.values())}
    print("speakers that the shared autoencoders are trained on:", teachers)
plan = autoencoder_runs(data)
own = [run for run in plan if run.protocol == "utterance" and run.is_own]
compared = own[: chosen["compared"]]
alone = [run.but(shared=0) for run in compared if data.shared_run(run)]
weights = 0.0, 100 * chosen["hfenn_weight"]
other_edges = [run.but(hfenn_weight=weight) for run in compared for weight in weights]
coders = fit_coders(data, [*plan, *alone, *other_edges])
errors = reconstruction_table(data, coders)

# %% [markdown]
# How strong is the leak of `paper`, where it was run? The table shows the share of test segments that overlap with a training
# segment. A profile that limits the number of training segments (`most_train`) weakens this leak, because fewer neighbours are
# trained on. Its `paper` scores are then less inflated than at the published setting.

# %%
leaking = [run for run in plan if run.protocol == "paper" and run.is_own]
limits = {f"share {SEGMENT_MS - HOP_MS:g} ms": 1.5 * HOP_MS, "share anything": SEGMENT_MS}
near = {
    run.model: {name: data.learned_share(run, within_ms=limit) for name, limit in limits.items()} for run in leaking
}
pd.DataFrame(near).T.round(2)

# %% [markdown]
# ## How well is a voice reconstructed?

# %%
autoencoders = errors[: len(plan)]
autoencoders.pivot(index="model", columns="protocol", values="mae_db").round(2)

# %% [markdown]
# The table shows the mean absolute error on test segments, in dB. Compare the columns, where there are several: in profile
# `quick`, the error hardly depends on the protocol, so a held-out recording of the same voice is about as easy to reconstruct
# as a known one. At the published settings, shown further below for EmoDB and RAVDESS, held-out recordings are harder by about
# 15 %, but these trainings also stopped earlier.
#
# ## Does a speaker need a separate autoencoder?
#
# The paper trains one per speaker. Here we compare two autoencoders of the same speaker: one starts from the shared
# autoencoder of other voices, the other never heard another voice. Notebook 02 compares both for emotion recognition.

# %%
spoken = errors[(errors["protocol"] == "utterance") & errors["model"].isin([run.model for run in compared])]
starts = spoken[spoken["λ"] == chosen["hfenn_weight"]].set_index(["model", "start"])
starts[["mae_db", "hfenn", "epochs", "seconds"]].round(3)

# %%
if alone:
    by_start = starts.groupby("start")[["mae_db", "hfenn"]].mean()
    better = by_start["mae_db"].idxmin()
    print(
        f"{better} is better: {by_start.loc['shared', 'mae_db']:.2f} dB with a shared start and {chosen['epochs']} epochs, "
        f"{by_start.loc['alone', 'mae_db']:.2f} dB alone after {chosen['alone_epochs']} epochs"
    )

# %%
histories = {run.model: coders[run].history for run in plan if run.protocol == "utterance"}
kept = {name: best_epoch(h) if chosen["patience"] else len(h) for name, h in histories.items()}
figure = networks.learning_curves(histories, values=("loss", "mae"), kept=kept)
caption = "Autoencoder training under the utterance protocol; dots mark the epoch kept."
style.save_figure(workspace, figure, "01_learning_curves", caption)
plt.show()

# %% [markdown]
# ## Originals and reconstructions
#
# The figure shows six test segments and their reconstructions, on one dB scale as in the paper's figure. The whole recording
# of each segment was held out. The lowest row shows the error: red is too loud, blue too soft.

# %%
coder = coders[own[0]]
tested = data.pick(own[0], "test")
examples = style.sort_by_emotion(clearest_segments(data.store, tested, n=6))
given, returned = coder.reconstruct(data.store.array[examples["row"]])
levels = coder.scale.invert(given), coder.scale.invert(returned)
figure = prototypes.reconstructions(*levels, examples["emotion"].tolist(), rate)
caption = f"Held-out segments of {own[0].model}, their reconstructions, and (lowest row) the error."
style.save_figure(workspace, figure, "01_reconstructions", caption)
plt.show()

# %% [markdown]
# The loss compares the Sobel edges of both. Where the edges of the reconstruction are weaker, it is blurred.

# %%
strength = [edge_strength(picture) for picture in (given[0], returned[0])]
edges = [80 * (picture / np.max(strength) - 1) for picture in strength]  # on the levels' scale
titles = ["recorded", "returned", "edges, recorded", "edges, returned"]
figure = speech.log_mel_grid([levels[0][0], levels[1][0], *edges], titles, rate)
style.save_figure(workspace, figure, "01_sobel", "Sobel edges of a segment and of its reconstruction.")
plt.show()

# %% [markdown]
# ## Listening
#
# The autoencoder reconstructs up to two seconds of a held-out utterance segment by segment, and the segments are joined. The
# first sound is made from the log-mel of the recording, the second from the log-mel of the reconstruction. Both went the same
# way back to sound, so the difference between them comes from the network.

# %%
clip = data.segments[data.segments["utterance_id"] == examples["utterance_id"].iloc[0]]
recorded = data.store.array[clip["row"].iloc[: 20 * 5 : 5]]  # every 100 ms: no overlap
clips = {"recorded": recorded, "returned": coder.scale.invert(coder.reconstruct(recorded)[1])}
for name, log_mels in clips.items():
    sound = features.mel_to_audio(log_mels, rate, length=rate // 10, seed=seed).ravel()
    save_audio(workspace.folder("sounds") / f"01_{name}.wav", sound, rate)
    display(Audio(sound, rate=rate))

# %% [markdown]
# ## What the edge term changes
#
# We train with λ = 0, the paper's λ, and a hundred times that, on the same speakers, seed and data. If the term works as
# intended, the edge error falls and the mean error does not rise.

# %%
weighed = spoken[spoken["start"].isin(spoken["start"].head(1))]
hfenn = weighed.sort_values(["model", "λ"]).set_index(["model", "λ"])[["mae", "mae_db", "mse", "hfenn"]]
write_csv(workspace.results / "01_hfenn.csv", hfenn.reset_index())
hfenn.round(5)

# %%
change = hfenn.groupby("λ")[["mae_db", "hfenn"]].mean()
change = 100 * (change[change.index > 0] / change[change.index == 0].sum() - 1)
for weight, row in change.iterrows():
    print(f"λ = {weight:g} against 0: edge error {row['hfenn']:+.1f} %, mean error {row['mae_db']:+.1f} %")

# %% [markdown]
# This is one seed. Do not interpret a change of about one percent.
#
# ## At the published settings
#
# The paper trains with a constant learning rate and batches of 128 for up to 10,000 epochs, and stops after 50 epochs without
# improvement. That takes too long on a laptop, so we ran it once on an accelerator, for a limited time
# (`tools/elsewhere.py`). The results are in `results/<dataset>/accelerator_prototype`. The table is computed from them, and
# `make rescore` checks it.

# %%
shipped = REPOSITORY / "results" / workspace.name / published.FOLDER
if shipped.exists():
    made, at_size = read_json(shipped / "provenance.json"), published.summarise_published(shipped)
    curves = pd.read_csv(shipped / "histories.csv")
    print(f"{made['device']}, Keras {made['packages']['keras']} on JAX {made['packages']['jax']}")
    print(*published.tell_autoencoders(at_size), *published.tell_edges(at_size, curves), sep="\n")
    columns = ["λ", "mae_db", "hfenn", "epochs", "best_epoch", "seconds", "by_clock"]
    display(at_size.set_index(["protocol", "model"])[columns].round(4))
else:
    print(f"No autoencoder of {workspace.name} was trained on an accelerator, only those of EmoDB and RAVDESS.")

# %%
if shipped.exists():
    by_run = published.read_curves(curves, "autoencoder")
    by_run = {run: epochs for run, epochs in by_run.items() if run.startswith("paper")}
    figure = networks.learning_curves(by_run, values=("loss", "mae"))
    caption = "Autoencoder training at the published settings, on the published split."
    style.save_figure(workspace, figure, "01_published", caption)
    plt.show()

# %% [markdown]
# ## Saved

# %%
columns = ["protocol", "model", "mae", "mae_db", "epochs", "best_epoch", "seconds", "low_db", "high_db", "path"]
workspace.save_table(autoencoders[columns], "autoencoders")
shown = errors[errors["λ"] == chosen["hfenn_weight"]][columns].drop(columns=["seconds", "path"])
write_csv(workspace.results / "01_autoencoders.csv", shown)
workspace.record("01", data.utterances, chosen)
print(f"{len(autoencoders)} autoencoders, trained in {autoencoders['seconds'].sum():.0f} s; 02 reads them next")
