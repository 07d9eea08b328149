"""Networks of earlier notebooks, opened to be explained: what notebooks 09 and 10 ask the same questions."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import librosa
import numpy as np
import pandas as pd

from ser_utils.corpora import emotions_in_order
from ser_utils.corpora.demo import make_planted_corpus
from ser_utils.corpora.loading import load_corpus
from ser_utils.evaluation.results import protocols_for
from ser_utils.evaluation.splits import make_folds
from ser_utils.explanation.attribution import (
    Clip,
    Explained,
    FrameSubject,
    Material,
    WaveformSubject,
    choose_clips,
    held_out,
    mel_of_cepstra,
    path_gradient,
)
from ser_utils.explanation.faithfulness import cue_region
from ser_utils.features.audio import load_audio
from ser_utils.features.frames import clip_frames
from ser_utils.features.store import FeatureStore, build_store, load_store
from ser_utils.profiles import settings
from ser_utils.systems.feature_network import deep_cnn
from ser_utils.systems.prototype.checks import Opened, SegmentSubject, open_classifier, utterance_vote
from ser_utils.systems.prototype.segments import groups_of
from ser_utils.systems.sigwavnet import wavelet  # noqa: F401  registers the layers of 07
from ser_utils.systems.speech_transformer.embeddings import build_embeddings
from ser_utils.systems.speech_transformer.pretrained import encoder_names, load_encoder, weights_folder
from ser_utils.training.folds import FoldTask, train_fold
from ser_utils.workspace import MissingResult, Workspace, sealed

OF_IMAGES = {"patch": (8, 8), "stride": (4, 4), "layer": "block_4", "attention": "attention"}
# name -> network of 05, its features, and where it differs from OF_IMAGES
FEATURE_NETWORKS = {
    "CNN, log-mel": ("deep_cnn", "log_mel", {}),
    "CNN, MFCC": ("deep_cnn", "mfcc", {"patch": (8, 4)}),
    # no picture is left at the end of this one: Grad-CAM becomes a curve over time
    "CNN–BiLSTM, log-mel": ("cnn_bilstm", "log_mel", {"layer": "bilstm"}),
}
PLANTED, PROTOTYPES, WAVEFORM = "planted, log-mel", "prototypes", "SigWavNet"
GRID = {"n_mels": 64, "n_fft": 1024, "hop_length": 256}  # of the planted corpus's spectrograms
PLANTED_RATE_HZ = 16000
PLANTED_OPTIONS = {
    "scale": "training",
    "batch_size": 8,
    "patience": 100,
    "learning_rate": 3e-3,
    "one_cycle": True,
    "weight_decay": 1e-3,
    "label_smoothing": 0.0,
    "mask_bands": 0,
    "mask_frames": 0,
    "resized_frames": 0,
}


def open_networks(
    workspace: Workspace, utterances: pd.DataFrame, chosen: dict[str, Any], without: Sequence[str] = ()
) -> list[Explained]:
    """Open the networks of 02, 05, 07 and, where published weights are there, 08, with held-out clips they get right.

    Parameters
    ----------
    chosen : settings of `explanation`
    without : names of networks of 05 that are left out

    Raises
    ------
    MissingResult : if one of these notebooks did not run
    """
    return [
        *feature_networks(workspace, utterances, chosen, without),
        *heads(workspace, utterances, chosen),
        waveform_network(workspace, utterances, chosen),
        explained_prototypes(open_prototypes(workspace, utterances, 0)["all"], chosen),
    ]


def named(networks: list[Explained], name: str) -> list[Explained]:
    """The networks of that name, one per fold."""
    return [network for network in networks if network.name == name]


def _roles(folds: pd.DataFrame, n: int = 1) -> dict[int, dict[str, str]]:
    """Number of each of the first n folds: who plays which role in it."""
    numbers = sorted(folds["fold"].unique())[:n]
    return {n: folds[folds["fold"] == n].set_index("utterance_id")["role"].to_dict() for n in numbers}


def _of_store(store: FeatureStore) -> dict[str, np.ndarray]:
    return {name: store.of(name) for name in store.table["utterance_id"]}


def open_trained(workspace: Workspace, name: str, *, made_by: str) -> keras.Model:
    """Open a network that an earlier notebook trained.

    Parameters
    ----------
    name : of its file in models/
    made_by : number of the notebook

    Raises
    ------
    MissingResult : if it is absent or damaged; says what trains it again
    """
    path = workspace.folder("models") / f"{name}.keras"
    if sealed(path) is None:
        state = "is damaged" if path.exists() else "is not there"
        executed = workspace.build / "notebooks" / f"{made_by}_*.ipynb"
        raise MissingResult(
            f"{path} {state}. Delete {executed} and run {workspace.command(made_by)}: it trains what is missing."
        )
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _explained(name, model, silence, material, *, most, most_steps, fold=0, **about):
    """A network over frames on the clips of its material; about : how it is asked, see `Subject`."""
    subject = FrameSubject(model, silence, spread=material.spread, most_steps=most_steps, **about)
    return Explained(name, subject, choose_clips(subject, material.tested, most=most), fold, material)


def feature_networks(
    workspace: Workspace, utterances: pd.DataFrame, chosen: dict[str, Any], without: Sequence[str] = ()
) -> list[Explained]:
    """The log-mel and MFCC networks of 05, on speakers they never heard; without : as in `open_networks`."""
    workspace.load_table("feature_network_scores", made_by="05")
    roles = _roles(make_folds(utterances, "speaker", system="feature_network", seed=workspace.seed), chosen["folds"])
    folder, emotion_of = workspace.folder("features", "feature_network"), _emotion_of(utterances)
    frames = {kind: _of_store(load_store(folder / kind)) for kind in ("log_mel", "mfcc")}
    networks, most = [], -(-chosen["real_clips"] // len(roles))
    for name in [name for name in FEATURE_NETWORKS if name not in without]:
        network, kind, about = FEATURE_NETWORKS[name]
        for fold, role_of in roles.items():
            model = open_trained(workspace, f"feature_network-{network}_{kind}-speaker-{fold}", made_by="05")
            material = held_out(frames[kind], emotion_of, role_of)
            how = OF_IMAGES | about | {"most": most, "most_steps": chosen["most_steps"], "fold": fold}
            networks.append(_explained(name, model, material.silence(kind), material, **how))
    return networks


def heads(workspace: Workspace, utterances: pd.DataFrame, chosen: dict[str, Any]) -> list[Explained]:
    """The CNN heads of 08 over speech encoders; none where no weights are there.

    There is no silence in embeddings: absence is the training mean.
    """
    of_speech = settings("speech_transformer", workspace.profile)
    possible = dict(sorted(protocols_for(utterances), key=str))  # as 08 has it
    protocol = of_speech["main_protocol"] if of_speech["main_protocol"] in possible else "utterance"
    folds = make_folds(utterances, protocol, system="speech_transformer", folds=possible[protocol], seed=workspace.seed)
    options = {"top": of_speech["top_layers"], "longest_s": of_speech["longest_s"]}
    of_embeddings = {"patch": (5, -1), "stride": (2, -1), "layer": "own_rows_2"}  # 100 ms at a time
    networks, emotion_of, most = [], _emotion_of(utterances), -(-chosen["real_clips"] // chosen["folds"])
    for name in encoder_names(of_speech):
        if not weights_folder(name).exists():
            continue
        encoder = load_encoder(name, seed=workspace.seed)
        embedded = build_embeddings(workspace.folder("features"), utterances, encoder, **options)
        rows = dict(zip(embedded.store.table["utterance_id"], embedded.clips("cnn"), strict=True))
        for fold, role_of in _roles(folds).items():
            trained = f"speech_transformer-{encoder.name}_cnn-{protocol}-{fold}"
            material, model = held_out(rows, emotion_of, role_of), open_trained(workspace, trained, made_by="08")
            how = of_embeddings | {"most": most, "most_steps": chosen["most_steps"], "fold": fold}
            networks.append(_explained(f"{encoder.name} head", model, 0.0, material, **how))
    return networks


def waveform_network(workspace: Workspace, utterances: pd.DataFrame, chosen: dict[str, Any]) -> Explained:
    """SigWavNet of 07 on speakers it never heard. It runs a recurrence over thousands of steps: few clips."""
    workspace.load_table("sigwavnet_scores", made_by="07")
    folds = make_folds(utterances, "speaker", system="sigwavnet", seed=workspace.seed)
    fold, role_of = next(iter(_roles(folds).items()))
    store = load_store(workspace.folder("features", "waveforms") / "sigwavnet")
    emotion_of = _emotion_of(utterances)
    classes = emotions_in_order(store.table["emotion"])
    tested = [
        Clip(name, np.array(store.of(name))[None], classes.index(emotion_of[name]))
        for name, role in role_of.items()
        if role == "test"
    ]
    window = settings("sigwavnet", workspace.profile)["sample_rate_hz"] // 10  # 100 ms
    model = open_trained(workspace, f"sigwavnet-network-speaker-{fold}", made_by="07")
    subject = WaveformSubject(model, 0.0, (window,), (window // 2,), most_steps=chosen["most_steps"])
    clips = choose_clips(subject, tested, most=chosen["waveform_clips"])
    return Explained(WAVEFORM, subject, clips, fold=fold, is_slow=True)


def open_prototypes(workspace: Workspace, utterances: pd.DataFrame, n_speakers: int) -> dict[str, Opened]:
    """Open the prototype classifiers of 02, protocol `utterance`: of `n_speakers` speakers, and the shared one, "all"."""
    models = workspace.load_table("prototype_classifiers", made_by="02").query("protocol == 'utterance'")
    of_classifier = settings("prototype_classifier", workspace.profile)
    most = {"most_train": of_classifier["most_train"], "most_test": of_classifier["most_watched"]}
    segments = load_store(workspace.folder("features") / "segments")
    folds = make_folds(utterances, "utterance", system="prototype", seed=workspace.seed)
    speakers_of = {name: [name.removeprefix("speaker_")] for name in models["model"]} | groups_of(utterances)
    is_shared = models["model"] == "all"
    rows = pd.concat([models[~is_shared].head(n_speakers), models[is_shared]])
    return {
        row.model: open_classifier(workspace, row, segments, folds, speakers=speakers_of[row.model], **most)
        for row in rows.itertuples()
    }


def explained_prototypes(shared: Opened, chosen: dict[str, Any]) -> Explained:
    """A prototype classifier as a network over whole held-out utterances.

    The level of a segment is its own, so that none can be silent: absence is the mean training segment.
    """
    heard = shared.tables["test"].groupby("utterance_id", sort=False)
    candidates = [
        Clip(name, shared.embeddings["test"][rows.index][None], shared.classes.index(rows["emotion"].iloc[0]))
        for name, rows in heard
    ]
    absence = shared.embeddings["train"].mean(axis=0)
    subject = SegmentSubject(
        utterance_vote(shared.classifier), absence, (5, -1), (2, -1), most_steps=chosen["most_steps"]
    )
    return Explained(PROTOTYPES, subject, choose_clips(subject, candidates, most=chosen["real_clips"]))


def planted_network(workspace: Workspace, chosen: dict[str, Any]) -> tuple[Explained, Callable, pd.DataFrame]:
    """Train a CNN on the planted corpus, where what decides the label is known.

    Returns
    -------
    the network with held-out clips; a function (utterance, n_frames, decoys=False) -> bool (n_frames, n_mels), where the
    cue or the decoys of a clip are; and the predictions on its test clips
    """
    made = {"seed": workspace.seed, "n_speakers": chosen["planted_speakers"]}
    corpus = make_planted_corpus(workspace.folder("planted") / "demo", **made)
    table = load_corpus("demo", corpus.parent)
    frames = functools.partial(clip_frames, kind="log_mel", **GRID)
    store = build_store(corpus.parent / "frames", table, frames, key=f"log-mel {GRID}", title="planted")
    folds = make_folds(table, "utterance", seed=workspace.seed)
    network = functools.partial(deep_cnn, filters=(12, 24, 32, 48), dropout=0.2)
    options = PLANTED_OPTIONS | {"epochs": chosen["epochs"]}
    task = FoldTask("planted", network, store.folder, folds, options, workspace.folder("models"), workspace.seed)
    trained = train_fold(task)
    material = held_out(_of_store(store), _emotion_of(table), next(iter(_roles(folds).values())))
    model = keras.saving.load_model(trained["path"], safe_mode=True)
    how = OF_IMAGES | {"most": chosen["explained_clips"], "most_steps": chosen["most_steps"]}
    explained = _explained(PLANTED, model, material.silence(), material, **how)
    cues = pd.read_csv(corpus / "cues.csv")

    def region_of(utterance, n_frames, *, decoys=False):
        rows = cues[(cues["utterance"] == utterance) & (cues["is_decoy"] == decoys)]
        hop_s = GRID["hop_length"] / PLANTED_RATE_HZ
        return cue_region(rows, n_frames, hop_s=hop_s, n_mels=GRID["n_mels"], fmax=PLANTED_RATE_HZ / 2)

    return explained, region_of, trained["predictions"]


def probability_of(network: Explained, signal: np.ndarray, sample_rate: int, label: int, **framing) -> float:
    """What a log-mel network says of a sound: the probability of one class."""
    material: Material = network.material
    frames = clip_frames(signal, sample_rate, kind="log_mel", **framing)
    scaled = ((frames - material.mean) / material.spread)[None].astype("float32")
    return float(network.subject.predict(scaled)[label])


def _emotion_of(table):
    return table.set_index("utterance_id")["emotion"]


def heard_by_feature_network(workspace: Workspace, path: str) -> tuple[np.ndarray, int]:
    """A recording as the networks of 05 hear it, at their rate and without the silence around the voice."""
    of_frames = settings("feature_network", workspace.profile)
    signal, rate = load_audio(path, of_frames["sample_rate_hz"])
    if of_frames["trim_db"]:
        how = {"frame_length": of_frames["n_fft"], "hop_length": of_frames["hop_length"]}
        signal, _ = librosa.effects.trim(signal, top_db=of_frames["trim_db"], **how)
    return signal, rate


def signed_maps(workspace: Workspace, networks: list[Explained], most: int) -> pd.DataFrame:
    """Integrated gradients of the log-mel and the MFCC network on up to `most` recordings, signed.

    The gradients of the MFCC network are also carried back to the mel bands, "MFCC, as bands".

    Returns
    -------
    a row per feature type and recording: `kind, utterance, emotion, map`, maps (n_frames, n_features)
    """
    n_mfcc = settings("feature_network", workspace.profile)["n_mfcc"]
    bands = load_store(workspace.folder("features", "feature_network") / "log_mel")
    rows = []
    for kind, name in (("log-mel", "CNN, log-mel"), ("MFCC", "CNN, MFCC")):
        network = named(networks, name)[0]
        subject, material = network.subject, network.material
        for clip in choose_clips(subject, material.tested, most=most):
            absence = subject.absence(clip.x)
            slope = path_gradient(subject.score(clip.label, clip.x), clip.x, absence)
            maps = {kind: (slope * (clip.x - absence))[0]}
            if kind == "MFCC":
                level = bands.of(clip.utterance)
                on_bands = mel_of_cepstra((slope / material.spread)[0, :, :n_mfcc], level.shape[1])
                maps["MFCC, as bands"] = on_bands * (level - level.min())
            emotion = material.classes[clip.label]
            rows += [(kind_shown, clip.utterance, emotion, values) for kind_shown, values in maps.items()]
    return pd.DataFrame(rows, columns=["kind", "utterance", "emotion", "map"])
