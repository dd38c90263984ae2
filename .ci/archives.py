"""Compare a wheel and a source archive with what is committed: ``python .ci/archives.py FOLDER``."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What a build adds to a source archive.
ADDED = {"PKG-INFO"}


def committed_files():
    """Return the names of all files that git knows; without git, those in this folder that a release cannot lack."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0:
        return set(done.stdout.splitlines())
    folders = (".ci", ".github", "docs", "examples", "skae", "tests")
    found = {path for folder in folders for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts}
    return {path.relative_to(ROOT).as_posix() for path in found if path.is_file()}


def source_files(folder):
    """Return the names of all files in the source archive, below its top folder."""
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        return {name.split("/", 1)[1] for name in (one.name for one in opened if one.isfile())}


def wheel_files(folder):
    """Return the names of all files in the wheel, but for those about it."""
    (archive,) = folder.glob("*.whl")
    with zipfile.ZipFile(archive) as opened:
        return {name for name in opened.namelist() if ".dist-info/" not in name}


def main(folder):
    """Say what is missing or too much, and fail if anything is."""
    committed = committed_files()
    package = {name for name in committed if name.startswith("skae/")}
    found = {"source": source_files(folder) - ADDED, "wheel": wheel_files(folder)}
    wanted = {"source": committed, "wheel": package | {"skae/py.typed"}}
    wrong = {
        f"The {name} {verb}": sorted(names)
        for name in found
        for verb, names in (("lacks", wanted[name] - found[name]), ("should not hold", found[name] - wanted[name]))
        if names
    }
    for complaint, names in wrong.items():
        print(complaint, *names, file=sys.stderr)
    print(f"The source holds {len(found['source'])} files, the wheel {len(found['wheel'])}.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
