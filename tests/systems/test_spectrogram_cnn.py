from functools import partial

import keras
import librosa
import noisereduce
import numpy as np
import pandas as pd
import pytest

from ser_utils.evaluation.splits import make_folds
from ser_utils.features.frames import clip_frames
from ser_utils.features.store import build_store, load_store
from ser_utils.profiles import settings
from ser_utils.systems.spectrogram_cnn import (
    LIKE,
    PUBLISHED,
    ConvolutionBlock,
    SpectrogramTask,
    clip_cnn,
    compare_with_published,
    count_clips,
    image_cnn,
    plan_study,
    resample_clip,
    without_softmax,
)
from ser_utils.systems.spectrogram_published import FAULTS, FINDINGS, compare_nets, compare_splits, read_answers
from ser_utils.training.fit import compile_for_lengths, set_seed
from ser_utils.training.folds import (
    ClipBatches,
    FoldData,
    UnweightedAverageRecall,
    clip_scale,
    fold_data,
    resize_clip,
    train_fold,
)
from ser_utils.workspace import REPOSITORY, Workspace, read_json


def clips_of(lengths, n_bands=16, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, n_bands)).astype("float32") for n in lengths]


def run(model, *inputs):
    if keras.backend.backend() == "jax":  # operation by operation it would compile each of them
        return model.predict_on_batch([inputs[0], inputs[1].astype("int32")])
    return keras.ops.convert_to_numpy(model(list(inputs) if len(inputs) > 1 else inputs[0]))


@pytest.fixture
def model():
    set_seed(0)
    return clip_cnn(3, 16, filters=(4, 6, 8))


def test_padding_never_changes_a_prediction(model):
    clips = clips_of((14, 5))
    alone = np.concatenate([run(model, clip[None], np.array([len(clip)])) for clip in clips[::-1]])
    padded, n_frames = ClipBatches(clips, batch_size=2)[0][0]
    wild = np.concatenate([padded, np.full((2, 7, 16), 99, "float32")], axis=1)
    wild[0, n_frames[0] :] = np.nan
    np.testing.assert_allclose(run(model, wild, n_frames), alone, atol=1e-6)


def test_a_block_agrees_with_its_equation():
    x = clips_of((6,), 8)[0][None, :, :, None]
    block = ConvolutionBlock(2, batch_norm=False)
    y, n = block(x, np.array([5], "int32"))
    weights, bias = (keras.ops.convert_to_numpy(w) for w in block.weights)
    padded = np.pad(x[0, :, :, 0], 1)
    by_hand = np.array(
        [[np.tensordot(padded[t : t + 3, b : b + 3], weights[:, :, 0], 2) + bias for b in range(8)] for t in range(6)]
    )
    by_hand = np.maximum(by_hand, 0)
    by_hand[5:] = 0
    pooled = by_hand.reshape(3, 2, 4, 2, 2).max(axis=(1, 3))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(y)[0], pooled, atol=1e-5)
    assert int(n[0]) == 3


def test_a_saved_model_predicts_the_same(model, tmp_path):
    clip, n = clips_of((9,))[0][None], np.array([9])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(run(again, clip, n), run(model, clip, n))


CONVOLUTIONS = {16: 1 * 16 * 9 + 16, 32: 16 * 32 * 9 + 32, 64: 32 * 64 * 9 + 64, 128: 64 * 128 * 9 + 128}


@pytest.mark.parametrize(
    ("network", "filters", "options", "dense"),
    [
        (clip_cnn, (16, 32, 64), {"n_pools": 2}, 64),
        (clip_cnn, (16, 32, 64, 128), {"n_pools": 4}, 128),
        (image_cnn, (16, 32, 64), {}, 64 * 16 * 32),
        (image_cnn, (16, 32, 64, 128), {}, 128 * 8 * 16),
    ],
)
def test_each_published_net_has_the_sources_weights_layer_by_layer(network, filters, options, dense):
    model = network(5, filters=filters, **options)
    counts = [layer.count_params() for layer in model.layers if layer.count_params()]
    norm = [4 * size for size in filters] if network is image_cnn else [0] * len(filters)
    expected = [count for size, extra in zip(filters, norm, strict=True) for count in (CONVOLUTIONS[size], extra)]
    assert counts == [count for count in expected if count] + [dense * 5 + 5]


def test_the_nets_pool_and_drop_as_the_source_does():
    three, four = clip_cnn(5), clip_cnn(5, filters=(16, 32, 64, 128), n_pools=4)
    assert [three.get_layer(f"block_{n}").pool for n in (1, 2, 3)] == [(2, 2), (2, 2), (1, 1)]
    assert [four.get_layer(f"block_{n}").pool for n in (1, 2, 3, 4)] == [(2, 2)] * 4
    for model, rate in ((three, 0.25), (image_cnn(5), 0.5)):
        assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [rate]


def test_weights_start_uniform_within_one_over_the_root_of_their_inputs(model):
    for name, fan_in in (("block_1", 9), ("block_3", 9 * 6), ("classes", 8)):
        for weight in model.get_layer(name).weights:
            assert 0.5 * fan_in**-0.5 < np.abs(keras.ops.convert_to_numpy(weight)).max() <= fan_in**-0.5


def literal_clip_cnn(model, clip, n_pools):
    """The source's forward pass of one clip at its own length: convolve, ReLU, pool (incomplete pools are dropped)."""
    x = clip[:, :, None].astype("float64")
    blocks = [layer for layer in model.layers if isinstance(layer, ConvolutionBlock)]
    for number, block in enumerate(blocks):
        weights, bias = (keras.ops.convert_to_numpy(w).astype("float64") for w in block.weights)
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
        x = np.maximum(np.einsum("tbcij,ijco->tbo", windows, weights) + bias, 0)
        if number < n_pools:
            t, b = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
            x = x[:t, :b].reshape(t // 2, 2, b // 2, 2, -1).max(axis=(1, 3))
    weights, bias = (keras.ops.convert_to_numpy(w) for w in model.get_layer("classes").weights)
    logits = x.mean(axis=(0, 1)) @ weights + bias
    return np.exp(logits) / np.exp(logits).sum()


@pytest.mark.parametrize("n_pools", [2, 3])
def test_a_padded_clip_gives_what_the_source_gives_at_the_clips_own_length(n_pools):
    model = clip_cnn(3, 16, filters=(4, 6, 8), n_pools=n_pools)
    clips = clips_of((13, 10))
    padded = np.zeros((2, 16, 16), "float32")
    for row, clip in zip(padded, clips, strict=True):
        row[: len(clip)] = clip
    expected = [literal_clip_cnn(model, clip, n_pools) for clip in clips]
    np.testing.assert_allclose(run(model, padded, np.array([13, 10])), expected, atol=1e-6)


def test_a_clip_is_prepared_as_the_source_prepares_it():
    """Its first second is taken for noise, its peak is normalised (which decibels below the maximum do not see)."""
    rate, draw, chosen = 44_100, np.random.default_rng(0), settings("spectrogram_cnn", "paper")
    signal = draw.normal(0, 0.01, 2 * rate)
    signal[rate:] += 0.2 * np.sin(2 * np.pi * 300 * np.arange(rate) / rate)
    signal = signal.astype("float32")
    cleaned = noisereduce.reduce_noise(y=signal, sr=rate, y_noise=signal[:rate], stationary=True)
    cleaned = cleaned / np.abs(cleaned).max()
    mel = librosa.feature.melspectrogram(y=cleaned, sr=rate, n_mels=128, n_fft=2048, hop_length=512, fmax=8000)
    expected = librosa.power_to_db(mel, ref=np.max).T
    grid = {name: chosen[name] for name in ("n_mels", "n_fft", "hop_length", "denoise")}
    np.testing.assert_allclose(clip_frames(signal, rate, kind="log_mel", **grid), expected, atol=0.02)
    assert chosen["sample_rate_hz"] == 0, "at the recording's own rate"


def test_the_published_split_is_483_and_121_clips_stratified_by_emotion_and_another_draw_a_seed():
    emotions = np.repeat(["anger", "disgust", "fear", "happiness", "sadness"], [121, 122, 120, 119, 122])
    names = [f"{i:03d}" for i in range(604)]
    table = pd.DataFrame({"utterance_id": names, "speaker": [str(i % 6) for i in range(604)], "emotion": emotions})
    table = table.assign(corpus="aesdd", sentence="", pcm_sha256=names)
    tested = set()
    for seed in range(5):
        split = make_folds(table, "paper", system="spectrogram_cnn", seed=seed)
        assert split["role"].value_counts().to_dict() == {"train": 483, "test": 121}
        test = table[table["utterance_id"].isin(split.loc[split["role"] == "test", "utterance_id"])]
        assert test["emotion"].value_counts().between(23, 25).all()
        tested.add(tuple(test["utterance_id"]))
    assert len(tested) == 5


SETTINGS = {
    "scale": "clip",
    "one_cycle": False,
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "mask_bands": 0,
    "mask_frames": 0,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "epochs": 2,
    "patience": 2,
}


def task_of(network, **options):
    options = {"name": "cnn", "store": None, "fold": None, "models": None} | options
    resized = {"resized_frames": network.keywords.get("n_frames", 0)}
    return SpectrogramTask(network=network, settings=SETTINGS | resized, **options)


NETWORKS = (partial(clip_cnn, filters=(4, 6), dropout=0), partial(image_cnn, n_frames=16, filters=(4, 6), dropout=0))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_that_is_surely_wrong_still_learns(network):
    table = pd.DataFrame({"emotion": ["anger", "sadness"], "role": "train"})
    model = task_of(network).build(FoldData(clips_of((16, 16), 8), table, None), 1)
    kernel, bias = model.get_layer("classes").weights
    kernel.assign(0 * kernel)
    bias.assign([1000.0, 0.0])  # in float32 the second class has a probability of exactly 0
    clips, targets = np.stack(clips_of((16, 16), 8)), np.eye(2, dtype="float32")[[1, 1]]
    inputs = [clips, np.array([16, 16], "int32")] if network.func is clip_cnn else clips
    model.optimizer.learning_rate = 1.0
    loss = model.train_on_batch(inputs, targets)
    assert float(np.ravel(loss)[0]) == pytest.approx(1000, rel=1e-3)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(bias), [999, 1], atol=0.01)


def test_the_net_without_softmax_has_the_same_weights_and_probabilities(model):
    clip, n = clips_of((9,))[0][None], np.array([9])
    logits = run(without_softmax(model), clip, n)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), run(model, clip, n), atol=1e-6)
    assert [weight.path for weight in without_softmax(model).weights] == [w.path for w in model.weights]


@pytest.mark.parametrize("resized", [0, 16])
def test_a_tiny_batch_can_be_learned_by_heart(resized):
    set_seed(1)
    clips, targets = clips_of((12, 12, 12, 12, 10, 10), 8), np.eye(3, dtype="float32")[[0, 1, 2, 0, 1, 2]]
    model = image_cnn(3, 8, n_frames=16, dropout=0) if resized else clip_cnn(3, 8, dropout=0)
    model = without_softmax(model)  # from probabilities the resized net would stick on JAX
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    compile_for_lengths(model, keras.optimizers.Adam(0.02), loss, metrics=[UnweightedAverageRecall(3)])
    batches = ClipBatches(clips, targets, batch_size=6, shuffle=True, resized_frames=resized)
    history = model.fit(batches, epochs=60, verbose=0).history
    assert history["uar"][-1] == 1 and history["loss"][-1] < 0.3


def test_batches_hold_every_clip_once_and_hardly_pad():
    rng = np.random.default_rng(0)
    clips = clips_of(rng.integers(20, 200, 100), 2)
    batches = ClipBatches(clips, np.arange(100), batch_size=8, shuffle=True, seed=3)
    seen, padded, real = [], 0, 0
    for epoch in range(2):
        for place in range(len(batches)):
            (features, n_frames), targets = batches[place]
            for row, n, i in zip(features, n_frames, targets, strict=True):
                np.testing.assert_array_equal(row[:n], clips[i])
                assert not row[n:].any()
            seen += list(targets)
            padded, real = padded + features.shape[0] * features.shape[1], real + n_frames.sum()
        assert sorted(seen) == sorted(list(range(100)) * (epoch + 1))
        batches.on_epoch_end()
    assert seen[:100] != seen[100:]
    allowed = 1.25 if batches.multiple == 1 else 1.6
    assert padded < allowed * real


def test_batches_depend_on_the_seed_and_the_epoch_alone():
    def content(seed):
        batches = ClipBatches(
            clips_of(range(5, 25)), batch_size=4, shuffle=True, seed=seed, augment=lambda clip, rng: clip + rng.normal()
        )
        batches.on_epoch_end()
        return [batches[place][0][0] for place in range(len(batches))]

    for one, two in zip(content(1), content(1), strict=True):
        np.testing.assert_array_equal(one, two)
    assert any(one.shape != two.shape or (one != two).any() for one, two in zip(content(1), content(2), strict=True))


def test_the_first_two_batches_tell_that_lengths_vary():
    batches = ClipBatches(clips_of((9, 9, 8, 9)), batch_size=2, shuffle=True)
    for _ in range(4):
        shapes = {batches[place][0][0].shape[1] for place in range(2)}
        assert len(shapes) == 2 or batches.multiple > 1
        batches.on_epoch_end()


def test_one_clip_a_batch_is_not_padded():
    batches = ClipBatches(clips_of((7, 3, 5)), batch_size=1)
    assert [batches[i][0][0].shape[1] for i in range(3)] == [3, 5, 7]


def test_a_short_clip_is_padded_and_a_long_one_squeezed():
    clip = np.arange(10, dtype="float32")[:, None]
    assert resize_clip(clip, 12)[:, 0].tolist() == [*range(10), 0, 0]
    np.testing.assert_allclose(resize_clip(clip, 4)[:, 0], [0, 3, 6, 9])


def test_a_long_clip_is_resampled_as_the_source_does_with_librosa():
    clip = clips_of((40,), 3)[0]
    expected = librosa.resample(clip.T, orig_sr=40, target_sr=16).T
    np.testing.assert_allclose(resample_clip(clip, 16), expected[:16], atol=1e-5)
    np.testing.assert_array_equal(resample_clip(clip, 50), np.pad(clip, ((0, 10), (0, 0))))


@pytest.fixture
def stores(tmp_path, monkeypatch):
    """Stores of twelve clips of noise and of their copies, which are 1 throughout; and a fold without validation."""
    names, emotions = [f"{i:02d}" for i in range(12)], ["anger", "sadness"] * 6
    clips = pd.DataFrame({"utterance_id": names, "path": names, "emotion": emotions, "pcm_sha256": names})
    clips = clips.assign(corpus="x", speaker="1")
    monkeypatch.setattr("ser_utils.features.store.load_audio", lambda path, rate: (int(path), 16_000))

    def noise(i, rate):
        return np.random.default_rng(i).normal(size=(10 + i, 8)).astype("float32")

    def ones(i, rate):
        return np.ones((10 + i, 8), "float32")

    folders = [
        build_store(tmp_path / rows.__name__, clips, rows, key=rows.__name__, jobs=1).folder for rows in (noise, ones)
    ]
    fold = pd.DataFrame({"utterance_id": names, "role": ["train"] * 8 + ["test"] * 4, "fold": 0})
    return *folders, fold


def test_copies_replace_the_clips_of_training_or_join_them(stores):
    own, copies, fold = stores
    for replaced, n_training in ((True, 16), (False, 24)):
        task = task_of(NETWORKS[0], store=own, fold=fold, copies=(copies, copies), replaced=replaced)
        data = fold_data(task)
        assert (data.table["role"] == "train").sum() == n_training
        assert sum(np.all(clip == 1) for clip in data.signals("train")) == 16
        assert len(data.signals("test")) == 4 and not any(np.all(clip == 1) for clip in data.signals("test"))


def test_batches_of_resized_clips_are_random(stores):
    own, _, fold = stores
    data = fold_data(task_of(NETWORKS[1], store=own, fold=fold))
    batches = task_of(NETWORKS[1]).batches(data, "train")
    seen = [[sorted(batch.tolist()) for batch in batches.batches] for _ in range(5) if not batches.on_epoch_end()]
    assert any(order not in ([[0, 1, 2, 3], [4, 5, 6, 7]], [[4, 5, 6, 7], [0, 1, 2, 3]]) for order in seen)
    assert batches[0][0].shape == (4, 16, 8)


@pytest.mark.parametrize("network", NETWORKS)
def test_as_published_the_epoch_is_chosen_by_accuracy_and_answers_are_probabilities(network, stores, tmp_path):
    own, _, fold = stores
    task = task_of(network, store=own, fold=fold, models=tmp_path, as_published=True)
    assert task.fit_options(fold_data(task)) == {"monitor": "val_accuracy"}
    result = train_fold(task)
    probabilities = result["predictions"][["p_anger", "p_sadness"]].to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    right = (result["predictions"]["prediction"] == result["predictions"]["emotion"]).mean()
    assert right == pytest.approx(result["history"]["val_accuracy"].max())
    again = train_fold(task)  # opens what was saved
    pd.testing.assert_frame_equal(again["predictions"], result["predictions"])


def test_profile_paper_makes_the_studys_thirteen_trainings_of_six_nets(stores, tmp_path):
    own, copies, fold = stores
    chosen = settings("spectrogram_cnn", "paper")
    kinds = ["published", "artificial", *chosen["single_changes"]]
    workspace, store = Workspace(profile="paper", root=tmp_path), load_store(own)
    plan = plan_study(workspace, store, chosen, ["paper", "speaker"], dict.fromkeys(kinds, [copies] * 10))
    study = {model: task for (model, protocol), task in plan.items() if protocol == "paper" and model not in LIKE}
    made = {
        (model.split(" ")[0], task.settings["learning_rate"]): task.settings["epochs"] for model, task in study.items()
    }
    assert made == {training: epochs for training, (epochs, _, _) in PUBLISHED.items()}
    for model, task in study.items():
        copied = "published" in model
        assert task.as_published and task.replaced == copied and len(task.copies) == 10 * copied
        wanted = (16 if copied else 8) if "image" in model else 1
        assert task.settings["batch_size"] == wanted
    assert not plan["clip_4_layers", "speaker"].as_published
    # 8 training clips; those of the two nets on copies ten times
    plan = {("clip_published", "paper"): study["clip_published"], ("clip_4_layers", "paper"): study["clip_4_layers"]}
    assert count_clips(plan, {"paper": fold}) == 100 * 80 + 100 * 8


def test_a_training_is_shown_beside_the_published_one():
    curves = {0: [0.2, 0.6, 0.4], 1: [0.5, 0.3, 0.1]}
    histories = pd.concat(
        pd.DataFrame({"draw": draw, "epoch": [1, 2, 3], "val_accuracy": curve, "net": "clip_3_layers", "rate": 1e-3})
        for draw, curve in curves.items()
    )
    row = compare_with_published(histories).iloc[0]
    assert (row["published"], row["published_epoch"], row["epochs_published"]) == (0.7438, 236, 300)
    assert row["draws"] == "0.600 0.500" and row["best"] == pytest.approx(0.55)
    assert row["last"] == pytest.approx((0.4 + 0.1) / 2) and row["neighbours"] == pytest.approx((0.3 + 0.2) / 2)
    assert row["low"] < 0.66 and row["high"] > 0.81


def answers_of(speakers, right):
    """Predictions of one draw per list, where clips of each speaker in turn are right as told."""
    tables = []
    for draw, hits in enumerate(right):
        emotions = ["anger", "sadness"] * (len(hits) // 2)
        said = [one if hit else "fear" for one, hit in zip(emotions, hits, strict=True)]
        ids = [f"clip_{i}" for i in range(len(hits))]
        about = {"utterance_id": ids, "speaker": speakers, "emotion": emotions, "prediction": said, "start_ms": np.nan}
        tables.append(pd.DataFrame(about | {"fold": draw}))
    return pd.concat(tables)


def test_nets_are_paired_draw_by_draw_and_over_all_draws():
    speakers = [str(i) for i in range(6) for _ in range(2)]
    better = answers_of(speakers, [[True] * 12, [True] * 12])
    worse = answers_of(speakers, [[True] * 12, [False] * 12])
    nets = {"clips win": (("clip_4_layers", 1e-3), ("image_4_layers", 1e-4)), "not trained": (("a", 1.0), ("b", 1.0))}
    answers = {("clip_4_layers", 1e-3, "paper"): better, ("image_4_layers", 1e-4, "paper"): worse}
    row = compare_nets(answers, nets).set_index("claim").loc["clips win"]
    assert row["draws"] == "+0.000 +1.000" and row["published"] == pytest.approx(0.7190 - 0.6281)
    assert row["difference"] == pytest.approx(0.5) and row["p"] == pytest.approx(2 / 2**6)
    assert list(compare_nets(answers, nets)["claim"]) == ["clips win"]
    answers["image_4_layers", 1e-4, "paper"] = worse[worse["fold"] == 0]
    with pytest.raises(
        ValueError, match="clips win: the nets were tested on other clips, or in other draws, under paper"
    ):
        compare_nets(answers, nets)


def test_the_tables_that_ship_follow_from_their_histories_and_decisions():
    folder = REPOSITORY / "results" / "aesdd"
    histories, answers = pd.read_csv(folder / "accelerator" / "04_histories.csv"), read_answers(folder / "accelerator")
    compared, shipped = compare_with_published(histories), {}
    for name in ("published", "published_splits", "published_findings", "published_faults"):
        shipped[name] = pd.read_csv(folder / f"04_{name}.csv")
    validated = pd.read_csv(folder / "accelerator" / "04_histories_validated.csv")
    tables = [
        compared,
        compare_splits(answers, compared, validated),
        *(compare_nets(answers, pairs) for pairs in (FINDINGS, FAULTS)),
    ]
    for table, there in zip(tables, shipped.values(), strict=True):
        pd.testing.assert_frame_equal(table, there, atol=1e-5, rtol=0)
    assert set(zip(compared["net"], compared["rate"], strict=True)) == set(PUBLISHED)
    for (net, rate), training in histories.groupby(["net", "rate"]):
        decided = answers[net, rate, "paper"]
        right = (decided["prediction"] == decided["emotion"]).groupby(decided["fold"]).mean()
        best = training.groupby("draw")["val_accuracy"].max()
        np.testing.assert_allclose(right, best, atol=1e-4)


def test_what_is_told_of_the_trainings_that_ship_is_what_their_histories_hold():
    folder = REPOSITORY / "results" / "aesdd" / "accelerator"
    paper, validated = (pd.read_csv(folder / f"04_{name}.csv") for name in ("histories", "histories_validated"))
    changes = pd.read_csv(folder / "04_histories_changes.csv")
    histories = pd.concat([paper.assign(protocol="paper"), changes.assign(protocol="paper"), validated])
    told = {
        (row["net"], row["rate"], row["protocol"]): row for row in read_json(folder / "04_provenance.json")["trainings"]
    }
    trained = histories.groupby(["net", "rate", "protocol"])
    assert set(told) == set(trained.groups)
    for key, training in trained:
        curves = [draw.reset_index(drop=True)["val_accuracy"] for _, draw in training.groupby("draw")]
        assert (told[key]["draws"], told[key]["epochs"]) == (len(curves), len(curves[0])), key
        assert told[key]["best_epochs"] == [curve.idxmax() + 1 for curve in curves], key


def test_answers_for_new_speakers_are_of_the_epoch_that_validation_chose():
    folder = REPOSITORY / "results" / "aesdd" / "accelerator"
    answers, histories = read_answers(folder), pd.read_csv(folder / "04_histories_validated.csv")
    chosen_on_validation = histories[["net", "rate", "protocol"]].drop_duplicates().itertuples(index=False, name=None)
    assert {key for key in answers if key[2] != "paper"} == set(chosen_on_validation)
    for (net, rate, protocol), training in histories.groupby(["net", "rate", "protocol"]):
        decided = answers[net, rate, protocol]
        right = (decided["prediction"] == decided["emotion"]).groupby(decided["fold"]).mean()
        chosen = training.loc[training.groupby("draw")["val_accuracy"].idxmax()].set_index("draw")
        np.testing.assert_allclose(right, chosen["test_accuracy"], atol=1e-4)
        if protocol == "speaker":
            assert (decided.groupby("fold")["speaker"].nunique() == 1).all()
            assert decided["utterance_id"].is_unique


@pytest.fixture
def table():
    names = {"utterance_id": list("abcd"), "corpus": ["x", "x", "x", "y"], "speaker": ["1", "1", "2", "1"]}
    return pd.DataFrame(names)


@pytest.mark.parametrize(
    ("how", "fitted"),
    [
        ("training", {0: [0, 1, 3], 2: [0, 1, 3], 3: [0, 1, 3]}),
        ("corpus", {0: [0, 1], 2: [0, 1], 3: [3]}),
        ("speaker", {0: [0, 1], 2: [2], 3: [3]}),
        ("utterance", {0: [0], 1: [1]}),
    ],
)
def test_a_scale_is_fitted_on_what_it_says(how, fitted, table):
    clips = clips_of((5, 6, 7, 8), 3)
    mean, spread = clip_scale(clips, table, how, [True, True, False, True])
    for clip, group in fitted.items():
        together = np.concatenate([clips[i] for i in group])
        np.testing.assert_allclose(mean[clip], together.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(spread[clip], together.std(axis=0), atol=2e-3)


def test_a_clips_own_scale_is_one_number(table):
    clips = clips_of((5, 6, 7, 8), 3)
    mean, spread = clip_scale(clips, table, "clip", [True] * 4)
    np.testing.assert_allclose(mean[1], clips[1].mean(), atol=1e-5)
    np.testing.assert_allclose(spread[1], clips[1].std(), atol=2e-3)


def test_an_unknown_scale_and_a_corpus_without_training_are_refused(table):
    clips = clips_of((5, 6, 7, 8), 3)
    with pytest.raises(ValueError, match="training, corpus, speaker, utterance, clip. Received: 'all'"):
        clip_scale(clips, table, "all", [True] * 4)
    with pytest.raises(ValueError, match="No training clip to scale corpus 'y' by"):
        clip_scale(clips, table, "corpus", [True, True, True, False])


def test_the_metric_is_the_mean_recall_of_the_classes_that_occur():
    metric = UnweightedAverageRecall(3)
    truth, guess = np.eye(3)[[0, 0, 0, 2]], np.eye(3)[[0, 0, 1, 1]]
    metric.update_state(truth[:2], guess[:2])
    metric.update_state(truth[2:], guess[2:])
    assert float(metric.result()) == pytest.approx((2 / 3 + 0) / 2)
