"""Sabotage: each mutant of a rule, stage or schedule must turn its mirrored tests red.

    python -m tests.mutants                 all of them
    python -m tests.mutants adam cosine     those of the files with these names

Every mutant is applied to a temporary copy of the repository; the repository is not touched.
"""

import concurrent.futures
import pathlib
import shutil
import subprocess
import sys
import tempfile

from tests.mutants_of_groups import GROUPS
from tests.mutants_of_optimizers import OPTIMIZERS
from tests.mutants_of_rounding import ROUNDING
from tests.mutants_of_stages import STAGES
from tests.mutants_of_wrappers import WRAPPERS

ROOT = pathlib.Path(__file__).parent.parent

# File: mutants of (where the search begins, old text, new text).
TABLES = (OPTIMIZERS, STAGES, WRAPPERS, GROUPS, ROUNDING)
MUTANTS = {
    name: [mutant for table in TABLES for mutant in table.get(name, [])]
    for name in dict.fromkeys(name for table in TABLES for name in table)
}

# Tests that are to fail where the mirrored ones do not, by room or file.
ALSO = {
    "optimizers": ("tests/optimizers/test_validation.py", "tests/optimizers/test_decay.py"),
    "optimizers/adam": ("tests/core/test_compose.py",),
    "optimizers/rmsprop": ("tests/core/test_compose.py",),
    "transforms": ("tests/optimizers/test_validation.py",),
    "transforms/constrain": ("tests/optimizers/test_parity.py",),
    "transforms/noise": ("tests/optimizers/test_noisy_sgd.py",),
    "core/hashing": ("tests/optimizers/test_noisy_sgd.py",),
    "inspect/size": ("tests/inspect/test_describe.py",),
    "transforms/decay": ("tests/optimizers/test_decay.py",),
    "testing": ("tests/test_laws.py",),
    "core/value": ("tests/optimizers/test_validation.py", "tests/optimizers/test_decay.py"),
}


def snapshot(place):
    for part in ("gradtx", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "lab")
        shutil.copytree(ROOT / part, place / part, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", place)


def mutated(text, name, begin, old, new):
    start = text.find(begin)
    at = text.find(old, start)
    if start < 0 or at < 0:
        raise LookupError(f"{name}: no {old!r} after {begin!r}")
    return text[:at] + new + text[at + len(old) :]


def check_texts(chosen):
    """Raises LookupError where a mutant's text is not in the source."""
    for name, *mutant in chosen:
        mutated((ROOT / "gradtx" / f"{name}.py").read_text(), name, *mutant)


def killed(original, name, *mutant):
    """Whether the mirrored tests fail on the mutant; an error that is no test failure raises."""
    room, _, module = name.rpartition("/")
    mirror = pathlib.PurePosixPath("tests", room, f"test_{module}.py")
    with tempfile.TemporaryDirectory() as place:
        copy = pathlib.Path(place) / "copy"
        shutil.copytree(original, copy)
        source = copy / "gradtx" / f"{name}.py"
        if mutant:
            source.write_text(mutated(source.read_text(), name, *mutant))
        for tests in (str(mirror), *ALSO.get(name, ()), *ALSO.get(room, ())):
            command = [sys.executable, "-m", "pytest", tests, "-x", "-q", "-p", "no:cacheprovider"]
            result = subprocess.run(command, cwd=copy, capture_output=True, text=True)
            if result.returncode not in (0, 1, 2):
                raise RuntimeError(f"{name}: {mutant}\n{result.stdout}{result.stderr}")
            if result.returncode:
                return True
        return False


def main(words):
    chosen = [
        (name, *mutant)
        for name, mutants in MUTANTS.items()
        if not words or name.rpartition("/")[2] in words
        for mutant in mutants
    ]
    check_texts(chosen)
    survived = 0
    with (
        tempfile.TemporaryDirectory() as place,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        original = pathlib.Path(place)
        snapshot(original)
        names = dict.fromkeys(name for name, *_ in chosen)
        for name, red in zip(names, pool.map(lambda n: killed(original, n), names), strict=True):
            if red:
                raise RuntimeError(f"the tests of {name} fail without a mutant")
        results = pool.map(lambda mutant: killed(original, *mutant), chosen)
        for (name, begin, old, new), dead in zip(chosen, results, strict=True):
            survived += not dead
            verdict = "killed  " if dead else "SURVIVED"
            print(f"{verdict} {name} {begin}: {old!r} -> {new!r}", flush=True)
    print(f"{len(chosen)} mutants, {survived} survived")
    return survived > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
