"""Hold CITATION.cff, the Croissant of the fold files and the RO-Crate against their own validators.

The validators have an environment of their own, build/validators: one of them wants packages that are older than the notebooks'.
"""

import subprocess
import sys
import urllib.error
import urllib.request
import venv
from pathlib import Path

from ser_utils.workspace import REPOSITORY, WorkspaceError
from tools import archive

VALIDATORS = ("cffconvert==2.0.0", "mlcroissant==1.1.0", "roc-validator==0.13.0")
CONTEXT = f"{archive.CRATE}/context"  # roc-validator reads it from there


def install(folder: Path) -> Path:
    """Make an environment with the validators in it. Returns the folder of their commands.

    Raises
    ------
    WorkspaceError : if pip cannot get them
    """
    commands = folder / "bin"
    done = folder / "installed.txt"
    if not done.exists() or done.read_text("utf-8").split() != list(VALIDATORS):
        venv.create(folder, with_pip=True, clear=True)
        command = [commands / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", *VALIDATORS]
        if subprocess.run(command).returncode:
            raise WorkspaceError(f"pip could not install {', '.join(VALIDATORS)}: is there an internet connection?")
        done.write_text("\n".join(VALIDATORS), "utf-8")
    return commands


def is_reachable(address: str) -> bool:
    """Whether an address answers."""
    try:
        with urllib.request.urlopen(address, timeout=20):
            return True
    except (urllib.error.URLError, TimeoutError):
        return False


def checks(commands: Path, crate: Path) -> dict[str, list]:
    """The command that validates each description; crate : the archive."""
    profile = ["--profile-identifier", "ro-crate-1.1", "--requirement-severity", "REQUIRED"]
    return {
        "CITATION.cff": [commands / "cffconvert", "--validate", "--infile", REPOSITORY / "CITATION.cff"],
        "Croissant": [commands / "mlcroissant", "validate", "--jsonld", archive.CROISSANT],
        "RO-Crate": [commands / "rocrate-validator", "--no-interactive", "validate", *profile, crate],
    }


def main() -> None:
    """Print a line for each description; exit status 1 where one is not valid."""
    build, invalid = REPOSITORY / "build", []
    try:
        commands = install(build / "validators")
        crate = archive.write_archive(build / "archive")
    except WorkspaceError as error:
        raise SystemExit(str(error)) from None
    for name, command in checks(commands, crate).items():
        if name == "RO-Crate" and not is_reachable(CONTEXT):
            print(f"{name}: not validated, because {CONTEXT} cannot be reached from here")
            continue
        told = subprocess.run(command, capture_output=True, text=True)
        print(f"{name}: {'valid' if told.returncode == 0 else 'not valid'}")
        if told.returncode:
            invalid.append(name)
            print(told.stdout, told.stderr, sep="\n", file=sys.stderr)
    if invalid:
        raise SystemExit(f"not valid: {', '.join(invalid)}")


if __name__ == "__main__":
    main()
