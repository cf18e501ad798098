"""Builds lmplz, the reference for the n-gram models, from the source of the PyPI package ``kenlm``; prints its path.

It needs cmake, a C++ compiler, and Debian's libboost-{program-options,system,thread}-dev, zlib1g-dev, libbz2-dev,
liblzma-dev. Run: ``python -m benchmarks.lmplz FOLDER``; tests find it by ``$GRISTMILL_LMPLZ`` or on the path.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
from pathlib import Path

VERSION = "0.3.0"


def build(folder: Path) -> Path:
    """Return the path of lmplz below a folder, built if necessary."""
    made = folder / "build" / "bin" / "lmplz"
    if made.exists():
        return made
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"kenlm-{VERSION}"
    if not source.exists():
        package = f"kenlm=={VERSION}"
        get = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "kenlm", "-d", str(folder)]
        subprocess.run([*get, package], check=True)
        with tarfile.open(folder / f"kenlm-{VERSION}.tar.gz") as packed:
            packed.extractall(folder, filter="data")
    # The package is old: newer versions of cmake need its policy version.
    how = ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_POLICY_VERSION_MINIMUM=3.5"]
    compiled, jobs = folder / "build", str(os.cpu_count() or 1)
    subprocess.run(["cmake", "-S", str(source), "-B", str(compiled), *how], check=True, stdout=subprocess.DEVNULL)
    make = ["cmake", "--build", str(compiled), "-j", jobs, "--target", "lmplz"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print(build(parser.parse_args().folder))
