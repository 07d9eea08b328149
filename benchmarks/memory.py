"""Anonymous memory of the largest corpus at hand, all of RAVDESS at 48 kHz, through notebooks 00 and 01.

Counted is everything the run starts: papermill, kernel, workers. Mapped file pages are not.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import MemoryWatch, nothing, row, tell
from ser_utils.features.store import load_store
from ser_utils.workspace import REPOSITORY, Workspace

SCRIPT = REPOSITORY / "notebooks" / "scripts" / "01_autoencoder.py"
# what is changed of notebook 01: one speaker, no shared models, one epoch; memory does not grow with epochs
CHANGES = {
    'dataset = "demo"': "dataset = {dataset!r}",
    'profile = "quick"': "profile = {profile!r}",
    'root = ""': "root = {root!r}",
    'speakers = ""': "speakers = {speaker!r}",
    'chosen = settings("prototype", profile, "brief" if brief else dataset)': 'chosen = settings("prototype", profile, "brief" if brief else dataset) | {{"epochs": 1}}',
}


def peak_of(command, **more):
    """Peak anonymous gigabytes of a command and all it starts; `more` goes into its environment."""
    common = {"PYTHONPATH": str(REPOSITORY), "MPLBACKEND": "agg", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment = os.environ | common | more
    running = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    watch = MemoryWatch(running.pid)
    watch.start()
    output, _ = running.communicate()
    peak = watch.stop()
    if running.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{output[-2000:]}")
    return peak / 1e9


def one_speaker(folder, **facts):
    """Notebook 01 as a script, for one speaker."""
    text = SCRIPT.read_text("utf-8")
    for old, new in CHANGES.items():
        if old not in text:
            raise SystemExit(f"{SCRIPT.name} has changed: {old!r} is not in it")
        text = text.replace(old, new.format(**facts), 1)
    path = Path(folder) / "01_one_speaker.py"
    path.write_text(text, "utf-8")
    return path


def measure(quick):
    if not quick and not os.environ.get("SER_DATA_DIR"):
        yield nothing("memory", "left out: SER_DATA_DIR is not set, and it wants all of RAVDESS")
        return
    dataset, profile = ("demo", "smoke") if quick else ("ravdess", "paper")
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as root:
        workspace = Workspace(dataset, profile, 0, root)
        command = [sys.executable, "-m", "tools.notebooks", "run", "00", "--root", root]
        gigabytes = peak_of([*command, "--dataset", dataset, "--profile", profile])
        store = load_store(workspace.build / "features" / "segments")
        rate = int(store.table["sample_rate_hz"].max())
        at = f"{dataset}, {len(store.array):,} segments at {rate // 1000} kHz, {store.array.nbytes / 1e9:.1f} GB of features"
        yield row("notebook 00, peak anonymous memory", at, gigabytes, "GB", at_most=1.5)

        speaker = store.table["speaker"].iloc[0]
        script = one_speaker(root, dataset=dataset, profile=profile, root=root, speaker=speaker)
        own = int(store.table.loc[store.table["speaker"] == speaker, "n_rows"].sum())
        at = f"{dataset}, one speaker's {own:,} segments, profile {profile}, 1 epoch"
        for jobs in dict.fromkeys(["1", str(os.cpu_count())]):
            gigabytes = peak_of([sys.executable, str(script)], SER_JOBS=jobs)
            shutil.rmtree(workspace.build / "models")
            what = f"notebook 01, JOBS={jobs}, peak anonymous memory"
            yield row(what, at, gigabytes, "GB", at_most=2.0)


if __name__ == "__main__":
    tell(measure, __doc__)
