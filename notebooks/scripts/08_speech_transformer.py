# ---
# jupyter:
#   graph:
#     reads: ["00"]
#     settings: [speech_transformer]
#     files: [weights]
# ---

# %% [markdown]
# # 08 · Listening through HuBERT and wav2vec 2.0
#
# **Question.** HuBERT and wav2vec 2.0 were trained on hours of speech without emotion labels. What do they know about
# emotions: in which layer, in which dimensions, and how much more after fine-tuning their last layers?
#
# **Reads** the utterance table of 00, and the encoders' published weights if they are there. **Writes** the embeddings
# (`features/embeddings_…`), and predictions, folds, audits and costs of every head, for notebook 11.
#
# **Reproduces** the two self-supervised feature sets of the multi-corpus study; wav2vec 2.0 was its best (79.41 %, split
# not stated). **Run time** on two cores, profile `quick`: one minute on the demo corpus with a tiny encoder. Published
# encoders of base size process five seconds of sound in one second on one core (`benchmarks/`).

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ser_utils.figures import networks, style
from ser_utils.profiles import settings, settings_table
from ser_utils.systems import study
from ser_utils.systems.speech_transformer import embeddings
from ser_utils.systems.speech_transformer import figures as transformer
from ser_utils.systems.speech_transformer.heads import changes_by_part
from ser_utils.systems.speech_transformer.pretrained import describe_heard, encoder_names, load_encoder
from ser_utils.workspace import Workspace, write_csv

# %% tags=["parameters"]
dataset = "demo"  # a corpus, several joined by "+", or a path to your own table
profile = "quick"  # smoke, quick or paper
seed = 0
root = ""  # where everything is written; empty: the repository
models = ""  # encoders parted by spaces, owner/name or folders; empty: WEIGHTS, or the profile's

# %%
workspace = Workspace(dataset, profile, seed, root)
chosen = settings("speech_transformer", profile, dataset)
utterances = workspace.load_table("utterances")
style.set_style()
settings_table("speech_transformer")

# %% [markdown]
# ## The encoders
#
# Seven convolutions turn 16 kHz sound into one frame every 20 ms, and a transformer lets every frame attend to all
# others. The notebook reads the published weights, without PyTorch. Where they are missing, a tiny encoder with random
# weights takes their place: it shows how everything works, but its results mean nothing. Every figure and table of it says so.
#
# `hubert-base-ls960` was trained on sound alone. `wav2vec2-base-960h` was afterwards fine-tuned on the transcripts of 960
# hours of speech, so it has learned text, too. Notebook 11 compares with the score of wav2vec 2.0 in EmoBox, a published
# benchmark of speech emotion recognition (Ma et al. 2024). That score belongs to the pre-trained model, which never saw a text.

# %%
loaded = [load_encoder(name, seed=seed) for name in models.split() or encoder_names(chosen)]
encoders = {encoder.name: encoder for encoder in loaded}
note = next((encoder.caption("") for encoder in loaded if not encoder.is_trained), "").strip()
for encoder in loaded:
    print(encoder.source)


# %%
def marked(table, precision=3):
    """The table, captioned where encoders are random."""
    return table.style.format(precision=precision).set_caption(note)


def show(figure, name, caption):
    """Save and show a figure, marked where encoders are random."""
    style.save_figure(workspace, transformer.stamp(figure, note), f"08_{name}", f"{note} {caption}".strip())
    plt.show()


# %%
architectures = {encoder.name: encoder.model.architecture for encoder in loaded}
about = pd.DataFrame({"layers": {name: a.num_hidden_layers for name, a in architectures.items()}})
about["width"] = [a.hidden_size for a in architectures.values()]
about["parameters"] = [encoder.model.count_params() for encoder in loaded]
about["normalises before a sublayer"] = [a.do_stable_layer_norm for a in architectures.values()]
marked(about)

# %% [markdown]
# ## Real HuBERT numbers, with one command
#
# On a machine with an internet connection:
#
#     make weights && make reproduce DATASET=emodb
#
# The first half downloads the encoders of this page (about 0.8 GB) into `data/weights`, and checks every file by its sha256.
# The second half runs all notebooks: this one listens through the encoders, 09 and 10 explain a head on them, 11 puts their
# scores into the tables. Embedding takes about 0.2 s of CPU time for each second of speech.
#
# - HuBERT is published as pickled weights, which can run any code when they are opened, so they are never read. If the hub
#   offers its own conversion to safetensors, `make weights` takes that, and the line above says so. If not, it prints the one
#   command that converts the file in a separate environment.
# - If you have the files already, run `make reproduce DATASET=emodb WEIGHTS=folder`. The folder can be a checkpoint
#   (`config.json`, `model.safetensors`), a folder of several checkpoints, or the cache of a hub client
#   (`~/.cache/huggingface/hub`).
# - Another encoder: `make weights MODEL=microsoft/wavlm-base-plus`, then
#   `make reproduce DATASET=emodb WEIGHTS=data/weights/microsoft--wavlm-base-plus`. wav2vec 2.0, HuBERT, WavLM and
#   data2vec-audio are read.
# - If a model is gated, a checksum is wrong or there is no connection, `make weights` says what to do.
#
# Everything except the download from the real hub is tested: a local server that answers as the hub does serves small encoders
# with random weights. An encoder that was never trained is marked wherever it appears, and none of its results are saved.
#
# ## What did they hear before?
#
# An encoder that was trained on a corpus knows its voices, and often its labels. Test clips of that corpus are then not
# new to it, whatever the folds keep apart. The table says what each encoder was trained on, and whether a corpus of this
# page is among it. The leakage audit counts such clips as *corpus heard in pre-training*; where nobody says what an
# encoder heard, it is *unknown*.

# %%
marked(describe_heard(loaded, utterances["corpus"].unique()))

# %% [markdown]
# ## Embedding, once
#
# One pass per recording keeps what the heads below need: the mean and standard deviation over time of each hidden state
# (1536 numbers at base size), and the frames of two hidden states, the last one and the one that fine-tuning starts from.
# Clips longer than 20 s are processed in overlapping pieces: attention costs the square of the length, and no published
# encoder was trained on longer ones.

# %%
options = {"top": chosen["top_layers"], "longest_s": chosen["longest_s"]}
embedded = {
    name: embeddings.build_embeddings(workspace.folder("features"), utterances, encoder, **options)
    for name, encoder in encoders.items()
}
for name, kept in embedded.items():
    assert np.isfinite(kept.statistics()).all()
    print(f"{name}: {len(kept.store.array)} rows, {kept.store.array.nbytes / 1e6:.1f} MB")

# %% [markdown]
# A second run reads these embeddings from disk, as long as recordings, weights and code are the same.
#
# ## Which layers tell emotions apart?
#
# Each clip is compared with the other clips of the same speaker, which removes the voice itself. The figure shows, for
# each hidden state, which share of the variance "this emotion or another" explains, averaged over dimensions.

# %%
emotions = utterances["emotion"].to_numpy()
z = {name: embeddings.against_own_voice(kept) for name, kept in embedded.items()}
figure = transformer.layer_heat_map({name: embeddings.standing_out(scores, emotions) for name, scores in z.items()})
caption = "Variance of each hidden state that one emotion against all others explains, voices taken out."
show(figure, "layers", caption)

# %% [markdown]
# ## Which dimensions?
#
# These are the dimensions of the last hidden state in which emotions differ most, and how single clips are spread in the
# first four. A dimension that only one emotion moves is easier to name than one that all emotions move a little.

# %%
last = {name: scores[:, -1] for name, scores in z.items()}
for name, scores in last.items():
    figure = transformer.dimension_heat_map(scores, emotions, title=f"{name}, last hidden state")
    caption = f"Mean of each emotion in the dimensions of {name} that tell them apart most."
    show(figure, f"dimensions_{name}", caption)

# %%
for name, scores in last.items():
    best = np.argsort(-embeddings.explained_by_emotion(scores, emotions))[:4]
    figure = transformer.dimension_boxes(scores, emotions, best, title=f"{name}, last hidden state")
    show(figure, f"boxes_{name}", f"The four dimensions of {name} that emotion explains best, clip by clip.")

# %% [markdown]
# The dimensions were chosen on these very clips, so the boxes show the best case, not a finding.
#
# ## The folds
#
# The folds of every protocol that the texts and speakers of the table allow. Except under `paper`, nothing is fitted or chosen
# on test clips.

# %%
folds = study.make_system_folds(workspace, utterances, "speech_transformer", chosen)
main = chosen["main_protocol"] if chosen["main_protocol"] in folds else "utterance"
study.describe_folds(folds, utterances).round(2)

# %% [markdown]
# ## What a linear classifier reads from each layer
#
# The figure shows logistic regression on the mean and standard deviation of each layer. Emotion is easiest to read where the
# curve peaks; in published encoders, this is mostly in the middle. The curve is only a description: choosing a layer by it would
# be a choice on test clips.

# %%
probed = {name: embeddings.probe_layers(kept, folds[main]) for name, kept in embedded.items()}
figure = transformer.probing_curve(probed, chance=1 / len(set(emotions)))
caption = f"UAR of a linear classifier on each hidden state, protocol {main}; bands: 95 %, by speaker."
show(figure, "probing", caption)

# %% [markdown]
# ## Heads
#
# Four heads leave the encoder frozen. `pooled` takes the mean and deviation of the last hidden state, and `layer_weighting`
# those of all hidden states, mixed by learned weights. `cnn` and `rnn` take the frames of the last hidden state. `fine_tuned`
# also trains the last layers of the encoder. The layers below them do not change, so their output is read from the embeddings.

# %%
first = embedded[loaded[0].name]
drawn = [
    embeddings.network(head, len(set(emotions)), first.clips(head)[0].shape[1], first.encoder, chosen)
    for head in chosen["heads"]
]
show(networks.architecture(*drawn), "heads", "The heads, drawn from the models.")

# %%
results = {}
for name, kept in embedded.items():
    heads = embeddings.head_models(workspace, kept, chosen)
    results |= study.train_models(
        workspace,
        utterances,
        folds,
        heads,
        title=name,
        main=main,
        elsewhere=[f"{name}_{head}" for head in chosen["heads_elsewhere"]],
        save=encoders[name].is_trained,
        jobs=1,
        engine="local",
    )

# %%
scores = study.score_results(results)
marked(scores.pivot(index="model", columns="protocol", values="uar"))

# %% [markdown]
# UAR over all test clips. Three things differ between protocols: what training knew of the voices, how many clips it had
# (see the folds above), and chance. Intervals and paired tests are in notebook 11.

# %%
for name in embedded:
    of_encoder = {key: result for key, result in results.items() if key[0].startswith(name)}
    histories, kept_epochs = study.first_histories(of_encoder, main)
    figure = networks.learning_curves(histories, values=("loss", "uar"), kept=kept_epochs)
    caption = f"Training on {name}, first fold of protocol {main}; dots: the epoch kept."
    show(figure, f"learning_curves_{name}", caption)

# %% [markdown]
# ## Which layers does the mixture use?
#
# The learned weight of each hidden state, one dot per fold. The dotted line is where all of them started. Weights can be
# compared because every hidden state was standardised.

# %%
mixtures = {name: embeddings.layer_weights(results[f"{name}_layer_weighting", main]["paths"]) for name in embedded}
show(transformer.layer_mixtures(mixtures), "mixtures", f"Weight of each hidden state, protocol {main}.")

# %% [markdown]
# ## What was frozen, what moved
#
# The head learns fastest, each layer below it is slower by a constant factor, and the rest does not learn at all. The
# largest change of any weight shows whether training kept to that.

# %%
changes = {
    name: changes_by_part(
        encoder.model,
        embeddings.tuned_layers(results[f"{name}_fine_tuned", main]["paths"][0]),
        embeddings.tuning_rates(encoder, chosen),
    )
    for name, encoder in encoders.items()
}
moved = pd.concat(changes, names=["encoder", ""]).droplevel(1)
assert ((moved["learning_rate"] > 0) == (moved["largest_change"] > 0)).all()
marked(moved, precision=6)

# %%
figure = transformer.frozen_and_tuned(changes)
show(figure, "fine_tuning", f"Learning rate and largest change of each part, first fold of protocol {main}.")

# %% [markdown]
# ## Saved
#
# Results of random encoders stay in this notebook, because the comparison would take them for results of HuBERT and
# wav2vec 2.0. `make weights` downloads the published weights.

# %%
probes = pd.concat(probed, names=["encoder", ""]).droplevel(1).reset_index()
trained = tuple(name for name, encoder in encoders.items() if encoder.is_trained)
for name, table, column in (("08_scores", scores, "model"), ("08_probing", probes, "encoder")):
    if trained:
        rows = table[table[column].str.startswith(trained)]
        write_csv(workspace.results / f"{name}.csv", rows)
keys = {name: encoder.key for name, encoder in encoders.items()}
workspace.record("08", utterances, {**chosen, "encoders": keys})
print(f"{len(workspace.saved)} of {len(results)} results saved; 09 and 11 read them next. {note}")
