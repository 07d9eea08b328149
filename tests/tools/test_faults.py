"""What happens when things break: nothing lost, nothing half-written taken for whole, nothing silently wrong."""

import contextlib
import ctypes
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import string
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import HealthCheck, example, given
from hypothesis import settings as fuzz
from hypothesis import strategies as st

from ser_utils.corpora.facts import CorpusError, GrammarError
from ser_utils.corpora.loading import CORPORA, EMOTIONS, inspect_corpus, load_corpus
from ser_utils.evaluation.splits import PROTOCOLS, make_folds
from ser_utils.features.audio import AudioError, load_audio
from ser_utils.features.spectral import split_segments
from ser_utils.features.store import build_store, load_store
from ser_utils.profiles import systems
from ser_utils.workspace import MissingResult, Workspace, seal
from tests.conftest import REPOSITORY
from tools import graph as make_graph

N_DAMAGED = 2000


def python(code, folder, **options):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.fixture
def recordings(tmp_path):
    rng = np.random.default_rng(0)
    paths = [str(tmp_path / f"{number}.wav") for number in range(64)]
    for path in paths:
        soundfile.write(path, rng.uniform(-0.5, 0.5, 4000), 16000)
    table = pd.DataFrame({"utterance_id": [f"u{n}" for n in range(64)], "path": paths})
    table["pcm_sha256"] = table["utterance_id"]
    table.to_parquet(tmp_path / "table.parquet")
    return table


SLOW_STORE = """
import time, pandas as pd
from ser_utils.features.store import build_store
def slow(signal, rate):
    print("working", flush=True)
    time.sleep({pause})
    return signal.reshape(-1, 100)
build_store("store", pd.read_parquet("table.parquet"), slow, key="k", jobs=1)
"""


def test_a_killed_extraction_leaves_nothing_and_is_made_again(recordings, tmp_path):
    running = python(SLOW_STORE.format(pause=0.05), tmp_path)
    assert running.stdout.readline() == "working\n"
    time.sleep(0.5)
    running.kill()
    running.wait()
    assert load_store(tmp_path / "store") is None
    again = build_store(tmp_path / "store", recordings, lambda signal, rate: signal.reshape(-1, 100), key="k", jobs=1)
    assert again.array.shape == (64 * 40, 100)
    np.testing.assert_array_equal(again.of("u63").ravel(), load_audio(recordings["path"][63])[0])


def test_a_full_disk_is_an_error_and_leaves_what_was_there(recordings, tmp_path):
    before = build_store(
        tmp_path / "store", recordings[:2], lambda signal, rate: signal.reshape(-1, 100), key="k", jobs=1
    )
    whole = np.array(before.array)
    limit = lambda: (  # noqa: E731
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
    )
    running = python(SLOW_STORE.format(pause=0), tmp_path, preexec_fn=limit)
    _, errors = running.communicate(timeout=120)
    assert running.returncode != 0 and "OSError" in errors
    np.testing.assert_array_equal(load_store(tmp_path / "store").array, whole)
    assert not list(tmp_path.glob(".writing-*"))


TRAINING = """
import keras, numpy as np, sys
from ser_utils.training.fit import fit_or_load
class Tell(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None): print(epoch, flush=True)
def build():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model
x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
fitted = fit_or_load("m.keras", build, (x, x[:, :1]), key="k", seed=0, epochs=int(sys.argv[1]), callbacks=[Tell()])
print("weights", fitted.model.get_weights()[0].tobytes().hex(), flush=True)
"""


@pytest.mark.slow
def test_a_killed_training_is_done_again_to_the_same_weights(tmp_path):
    def weights(folder):
        folder.mkdir(exist_ok=True)
        running = python(TRAINING.replace("sys.argv[1]", "30"), folder)
        return running.communicate(timeout=240)[0].split("weights ")[1]

    wanted = weights(tmp_path / "undisturbed")
    folder = tmp_path / "killed"
    folder.mkdir()
    running = python(TRAINING.replace("sys.argv[1]", "30"), folder)
    while running.stdout.readline() not in ("3\n", ""):
        pass
    running.kill()
    running.wait()
    assert not (folder / "m.keras").exists()
    assert weights(folder) == wanted


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_checkpoint_leaves_no_model(tmp_path):
    """The kill comes when half of the new model is on disk; the finished one stays, and the new one is made again."""
    half = (
        "import keras, os, time\nwhole = keras.Model.save\n"
        "def save(model, path, **options):\n"
        "    whole(model, path, **options)\n    os.truncate(path, os.path.getsize(path) // 2)\n"
        "    print('half', flush=True)\n    time.sleep(60)\n"
    )
    two, three = (TRAINING.replace("int(sys.argv[1])", number) for number in "23")
    first = python(two, tmp_path).communicate(timeout=240)[0]
    finished = (tmp_path / "m.keras").read_bytes()
    running = python(half + "keras.Model.save = save\n" + three, tmp_path)
    while running.stdout.readline() not in ("half\n", ""):
        pass
    running.kill()
    running.wait()
    assert (tmp_path / "m.keras").read_bytes() == finished
    again = python(three, tmp_path).communicate(timeout=240)[0]
    assert "2\n" in again and again.split("weights ")[1] != first.split("weights ")[1]
    assert (tmp_path / "m.keras").read_bytes() != finished
    opened = python(three, tmp_path).communicate(timeout=240)[0]
    assert opened.split("weights ")[1] == again.split("weights ")[1] and "2\n" not in opened


def test_two_runs_on_one_folder_take_turns(tmp_path):
    code = (
        "import sys, time\nfrom tools.notebooks import one_at_a_time\nfrom ser_utils.workspace import Workspace\n"
        f"with one_at_a_time(Workspace(root={str(tmp_path)!r}, profile='smoke')):\n"
        "    print(time.monotonic(), flush=True); time.sleep(1); print(time.monotonic(), flush=True)\n"
    )
    both = [python(code, tmp_path) for _ in range(2)]
    times = sorted([float(t) for t in one.communicate(timeout=120)[0].split()] for one in both)
    assert times[0][1] <= times[1][0]


# disks that refuse ------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1M", "none", place], capture_output=True).returncode
    ):
        pytest.skip("no disk can be mounted here; a limit on file size stands in for it above")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full_loses_nothing(small_disk, recordings):
    space = Workspace(root=small_disk, profile="smoke")
    table = pd.DataFrame({"a": np.arange(100)})
    space.save_table(table, "utterances")
    store = small_disk / "store"
    cut = lambda signal, rate: signal.reshape(-1, 100)  # noqa: E731
    whole = np.array(build_store(store, recordings[:4], cut, key="k", jobs=1).array)
    noise = np.random.default_rng(0).random((300_000, 1))
    with pytest.raises(OSError, match="No space left"):
        space.save_table(pd.DataFrame(noise, columns=["a"]), "utterances")
    with pytest.raises(OSError, match="No space left"):
        build_store(store, recordings, cut, key="k", jobs=1)
    pd.testing.assert_frame_equal(space.load_table("utterances"), table)
    np.testing.assert_array_equal(load_store(store).array, whole)
    assert not list(small_disk.rglob(".writing-*"))


def as_ordinary_user():
    """In a child: what root may do beyond its file permissions is given up."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):  # DAC_OVERRIDE, DAC_READ_SEARCH
        libc.prctl(24, capability, 0, 0, 0)


def test_a_read_only_folder_is_named_and_left_as_it_was(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o555)
    run = subprocess.run(
        [sys.executable, "-m", "tools.notebooks", "run", "00", "--profile", "smoke", "--root", str(root)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        preexec_fn=as_ordinary_user,
    )
    root.chmod(0o755)
    assert run.returncode != 0 and f"Permission denied: '{root}/build" in run.stderr
    assert not list(root.iterdir())


@pytest.mark.parametrize("kind", ["tables", "folds", "predictions", "audits"])
def test_one_altered_byte_anywhere_is_noticed(tmp_path, kind):
    space = Workspace(root=tmp_path, profile="smoke")
    name = {"tables": "utterances"}.get(kind, f"{kind}/vae-both-paper-holdout")
    path = space.save_table(pd.DataFrame({"fold": [0, 1], "role": ["train", "test"]}), name)
    whole = path.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 20).astype(int):
        altered = bytearray(whole)
        altered[place] ^= 16
        path.write_bytes(altered)
        with pytest.raises(MissingResult, match="is damaged: run notebook 06 first"):
            space.load_table(name, made_by="06")
    path.write_bytes(whole)
    assert space.has_table(name)


# time and change ----------------------------------------------------------------------------------------------


@pytest.fixture
def own_corpus(tmp_path):
    """Six recordings and their table; a function that loads it with a cache of its own."""
    rng, folder = np.random.default_rng(0), tmp_path / "own"
    folder.mkdir()
    lines = ["path,speaker,emotion"]
    for number, emotion in enumerate(["anger", "sadness"] * 3):
        soundfile.write(folder / f"{number}.wav", rng.uniform(-0.5, 0.5, 1600), 16000)
        lines.append(f"{number}.wav,s{number // 2},{emotion}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return (folder, lambda: inspect_corpus(str(folder / "table.csv"), folder, cache=tmp_path / "facts.parquet").table)


@pytest.mark.parametrize("jump_s", [None, 0, -10 * 365 * 86400, 10 * 365 * 86400])
def test_a_recording_changed_after_its_features_were_made_is_made_again(own_corpus, tmp_path, jump_s):
    """Same name, same size, whatever the clock said when it was changed, or (None) with its old time put back."""
    folder, load = own_corpus
    cut = lambda signal, rate: signal.reshape(-1, 100)  # noqa: E731
    before = build_store(tmp_path / "store", load(), cut, key="k", jobs=1)
    rows = {name: np.array(before.of(name)) for name in before.table["utterance_id"]}
    graph = make_graph.corpus_listing(str(folder / "table.csv"))
    was = os.stat(folder / "3.wav").st_mtime_ns
    soundfile.write(folder / "3.wav", np.random.default_rng(1).uniform(-0.5, 0.5, 1600), 16000)
    now = was if jump_s is None else time.time_ns() + jump_s * 10**9
    os.utime(folder / "3.wav", ns=(now, now))
    assert make_graph.corpus_listing(str(folder / "table.csv")) != graph
    after = build_store(tmp_path / "store", load(), cut, key="k", jobs=1)
    changed = [name for name in rows if not np.array_equal(after.of(name), rows[name])]
    assert changed == ["3"]
    np.testing.assert_array_equal(after.of("3").ravel(), load_audio(folder / "3.wav")[0])


@pytest.mark.parametrize("jump_s", [-10 * 365 * 86400, 10 * 365 * 86400])
def test_make_goes_by_content_when_the_clock_has_jumped(tmp_path, jump_s):
    """A notebook executed "in the future" is run again when its settings changed, one from "the past" always."""
    folder = Workspace(root=tmp_path, profile="smoke").folder("notebooks")
    steps = make_graph.steps_of("demo", "smoke", folder.parent)
    now = time.time() + jump_s
    for step in steps.values():
        step.output.write_text(json.dumps({"metadata": {"made_from": step.key}}))
        os.utime(step.output, (now, now))
    assert make_graph.outdated(steps) == ([] if jump_s > 0 else list(steps))
    other = make_graph.steps_of("demo", "smoke", folder.parent, "other speakers")
    assert make_graph.outdated(other) == list(steps)


# nothing is executed ------------------------------------------------------------------------------------------


class Evil:
    """A pickle of this makes a file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_in_place_of_an_array_is_not_opened(recordings, tmp_path):
    folder = tmp_path / "store"
    build_store(folder, recordings[:2], lambda signal, rate: signal.reshape(-1, 100), key="k", jobs=1)
    np.save(folder / "rows.npy", np.array([Evil(tmp_path / "executed")] * 80, object), allow_pickle=True)
    size = (folder / "rows.npy").stat().st_size
    seal(folder / "utterances.parquet", array_bytes=size, fingerprint="")
    with pytest.raises(ValueError, match="Object arrays|Array can't be memory-mapped"):
        load_store(folder)
    assert not (tmp_path / "executed").exists()


def test_code_in_a_model_file_is_not_run(tmp_path):
    import keras

    from ser_utils.training.fit import fit_or_load

    marker, name = tmp_path / "executed", str(tmp_path / "executed")

    def build(code=False):
        inner = keras.layers.Lambda(lambda x: x if open(name, "w") else x) if code else keras.layers.Dense(1)
        model = keras.Sequential([keras.Input((3,)), inner, keras.layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    x = np.zeros((4, 3), np.float32)
    given = {"key": "k", "seed": 0, "epochs": 1}
    path = fit_or_load(tmp_path / "m.keras", build, (x, x[:, :1]), **given).path
    facts = json.loads(path.with_name(".m.keras.seal").read_text())
    build(code=True).save(path)
    facts.pop("sha256")
    seal(path, **facts)  # as whoever slips in a model would
    marker.unlink()
    with pytest.raises((ValueError, TypeError), match="(?s)[Ll]ambda|safe_mode|unsafe"):
        fit_or_load(path, build, (x, x[:, :1]), **given)
    assert not marker.exists()


def test_code_in_a_database_header_is_not_run(tmp_path):
    header = f"name: x\ntables: !!python/object/apply:builtins.open ['{tmp_path / 'executed'}', 'w']\n"
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "db.yaml").write_text(header)
    with pytest.raises(Exception, match="python/object/apply"):
        load_corpus(str(tmp_path / "db"), tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.slow
def test_jupyter_stays_on_this_machine_and_wants_a_token(tmp_path):
    recipe = subprocess.run(["make", "-n", "lab"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    command = next(line for line in recipe.splitlines() if "jupyter lab" in line).split()
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(tmp_path), "HOME": str(tmp_path)}
    root = ["--allow-root"] if os.geteuid() == 0 else []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        wanted = free.getsockname()[1]
    server = subprocess.Popen(
        [REPOSITORY / command[0], *command[1:], "--no-browser", f"--port={wanted}", *root],
        cwd=REPOSITORY,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = next(
            found for line in server.stderr if (found := re.search(r"http://127\.0\.0\.1:(\d+)/\S*token=(\w+)", line))
        )
        port, token = url.groups()
        while not listening(int(port)):  # the address is told before
            assert server.poll() is None
            time.sleep(0.05)
        page = f"http://127.0.0.1:{port}/api/contents"
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(page, timeout=60)
        assert refusal.value.code == 403 and len(token) >= 32
        assert urllib.request.urlopen(f"{page}?token={token}", timeout=60).status == 200
        assert listening(int(port)) == {"0100007F"}  # 127.0.0.1
    finally:
        server.terminate()
        server.communicate(timeout=60)


def listening(port):
    """Addresses, as /proc writes them, on which something listens at `port`."""
    lines = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table) as source:
            lines += [line.split() for line in list(source)[1:]]
    return {
        place.split(":")[0]
        for _, place, _, state, *_ in lines
        if state == "0A" and int(place.split(":")[1], 16) == port
    }


# damaged input, in numbers --------------------------------------------------------------------------------------


def _damaged(rng, whole):
    """One damaged copy of a file's bytes: cut, overwritten, with another header, or nothing like it."""
    data = bytearray(whole)
    kind = rng.integers(6)
    if kind == 0:
        return bytes(data[: rng.integers(len(data))])
    if kind == 1:  # somewhere in the header: rates, channels, lengths, formats
        for place in rng.integers(0, 60, rng.integers(1, 8)):
            data[place % len(data)] = rng.integers(256)
    elif kind == 2:
        start = rng.integers(len(data))
        data[start : start + 50] = rng.bytes(50)
    elif kind == 3:
        return rng.bytes(int(rng.integers(200)))
    elif kind == 4:
        data[4:8] = rng.bytes(4)
    else:
        data[-1:] = rng.bytes(int(rng.integers(1, 500)))
    return bytes(data)


def test_two_thousand_damaged_files_are_read_cleanly_or_refused_in_words(tmp_path):
    rng, signal_ = np.random.default_rng(0), np.random.default_rng(1).uniform(-0.5, 0.5, 800)
    wholes = []
    for form, subtype in (
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("FLAC", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("OGG", "VORBIS"),
    ):
        buffer = io.BytesIO()
        soundfile.write(buffer, signal_, 16000, format=form, subtype=subtype)
        wholes.append((buffer.getvalue(), form.lower()))
    outcomes = {"read": 0, "refused": 0}
    for number in range(N_DAMAGED):
        whole, suffix = wholes[number % len(wholes)]
        path = tmp_path / f"damaged.{suffix}"
        path.write_bytes(_damaged(rng, whole))
        try:
            samples, rate = load_audio(path)
            assert samples.ndim == 1 and len(samples) and np.isfinite(samples).all() and rate > 0
            outcomes["read"] += 1
        except AudioError as error:
            assert error.reason and "Traceback" not in error.reason
            outcomes["refused"] += 1
    assert min(outcomes.values()) > N_DAMAGED / 20, outcomes


def test_damaged_names_are_refused_and_never_given_a_label_that_is_not_there():
    rng = np.random.default_rng(0)
    letters = list("abcdefWLEAFTN0123456789-_. ()/\\<>\n\0é漢")
    names = {"emodb": "03a01Fa.wav", "ravdess": "03-01-05-02-01-02-12.wav", "aesdd": "a01 (1).wav"}
    for corpus, name in names.items():
        for _ in range(700):
            changed = list(name)
            for place in rng.integers(0, len(changed), rng.integers(1, 4)):
                changed[place] = rng.choice(letters)
            try:
                facts = CORPORA[corpus].utterance("".join(changed))
                assert facts["emotion"] in CORPORA[corpus].emotions and facts["speaker"]
            except GrammarError as error:
                assert str(error)


@pytest.mark.parametrize("value", ["", "fast", "quick ", "../smoke", "Quick", "\n", 1, None, ["quick"]])
def test_strange_profiles_are_refused(value):
    with pytest.raises(ValueError, match="profile must be one of"):
        Workspace(profile=value)


@pytest.fixture(scope="module")
def fuzzed_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    soundfile.write(folder / "0.wav", np.sin(np.arange(800)), 16000)
    return folder


cells = st.one_of(
    st.sampled_from(
        ["0.wav", "../0.wav", "/etc/passwd", "", "anger", "Sad", "wistful", "s1", "nan", "1e999", '"', "\0"]
    ),
    st.text(string.printable + "é漢\u202e", max_size=12),
)


@fuzz(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    head=st.lists(st.sampled_from(["path", "speaker", "emotion", "gender", "utterance_id", "x"]), max_size=6),
    rows=st.lists(st.lists(cells, max_size=6), min_size=1, max_size=5),
    separator=st.sampled_from(",;\t"),
    cut=st.integers(0, 300),
)
def test_damaged_tables_are_read_or_refused_in_words(fuzzed_folder, head, rows, separator, cut):
    folder = fuzzed_folder
    text = "\n".join(separator.join(row) for row in [head, *rows])
    (folder / "table.csv").write_bytes(text.encode("utf-8", "surrogatepass")[: cut + 30])
    try:
        table = inspect_corpus(str(folder / "table.csv"), folder, cache=folder / "facts.parquet").table
    except CorpusError as error:
        assert str(error)
    else:
        assert set(table["emotion"]) <= set(EMOTIONS) and (table["speaker"] != "").all()


def test_a_table_of_no_rows_is_refused_in_words(tmp_path):
    (tmp_path / "table.csv").write_text("path,speaker,emotion\n")
    with pytest.raises(CorpusError, match="names no recordings"):
        load_corpus(str(tmp_path / "table.csv"), tmp_path)


numbers = st.one_of(st.integers(-(10**9), 10**9), st.floats(width=32), st.sampled_from(["", "x", None, True, [], "1"]))


@fuzz(max_examples=300, deadline=None)
@example(seed=0, dataset="~0")  # nobody's home
@given(seed=numbers, dataset=st.one_of(numbers, st.text(max_size=20)))
def test_strange_parameters_are_refused_in_words(seed, dataset):
    try:
        space = Workspace(dataset=dataset, profile="smoke", seed=seed, root="/nowhere")
    except (ValueError, TypeError) as error:
        assert "Received" in str(error) or "null" in str(error), error
    else:
        assert space.build.is_relative_to("/nowhere/build")
        assert space.build.relative_to("/nowhere/build").parts[1:] == ("smoke", f"seed_{seed}")


@fuzz(max_examples=300, deadline=None)
@given(n=st.integers(0, 5000), rate=st.integers(-10, 96_000), segment_ms=st.floats(), hop_ms=st.floats())
def test_strange_segments_are_refused_in_words(n, rate, segment_ms, hop_ms):
    try:
        segments = split_segments(np.zeros(n, np.float32), rate, segment_ms=segment_ms, hop_ms=hop_ms)
    except (ValueError, OverflowError) as error:
        assert str(error)
    else:
        assert segments.ndim == 2 and 0 < segments.shape[1] <= n


protocols, named_systems = st.sampled_from(PROTOCOLS), st.sampled_from(list(systems()))
named_folds = st.sampled_from(["holdout", "emobox", "leave_one_speaker_out", "2_fold", "0_fold", "3_speakers"])


@fuzz(max_examples=300, deadline=None)
@example(protocol="sentence", system="", folds="")
@example(protocol="paper", system="prototype", folds="holdout")
@given(
    protocol=st.one_of(protocols, st.text(max_size=8)),
    system=st.one_of(named_systems, st.text(max_size=8)),
    folds=st.one_of(named_folds, st.text(max_size=8)),
)
def test_strange_protocols_are_refused_in_words(protocol, system, folds):
    table = pd.DataFrame(
        {
            "utterance_id": list("abcd"),
            "corpus": "c",
            "speaker": list("1122"),
            "sentence": "s",
            "emotion": ["anger", "sadness"] * 2,
            "pcm_sha256": list("abcd"),
            "gender": "",
        }
    )
    wanted = "Accepted: |Received: |needs at least two texts|too few recordings|enough clips|are RAVDESS's. Use"
    try:
        split = make_folds(table, protocol, system=system, folds=folds)
    except ValueError as error:
        assert re.search(wanted, str(error)), error
    else:
        assert protocol in PROTOCOLS
        assert set(split["utterance_id"]) == set("abcd")
        assert {"train", "test"} <= set(split["role"])
