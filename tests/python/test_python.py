#!/usr/bin/env python3
"""examples/python: pip installs it from the folder, its own tests pass, and what the README shows of it happens.

The folder is copied first, because pip builds where it finds it. The interpreter is the one that runs this, or the
system's, whichever has cffi, numpy, pytest, setuptools and pip; where none has them all, everything is skipped. Nothing
is fetched.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, Skip, compiler, main, run  # noqa: E402

NEEDED = "cffi, numpy, pytest, setuptools, wheel, pip"
OPTIONAL = {"test_hdf5.py": "h5py"}
LOCK, INSTALLED = threading.Lock(), []


def interpreter():
    """The first that has everything, the headers of Python too."""
    probe = "import %s, os, sysconfig\nassert os.path.exists(sysconfig.get_paths()['include'] + '/Python.h'), " \
            "'no Python.h'" % NEEDED
    tried = {}
    for python in (sys.executable, "/usr/bin/python3"):
        if os.path.exists(python) and python not in tried:
            status, output = run([python, "-c", probe], cwd="/")
            if status == 0:
                return python
            tried[python] = output.strip().split("\n")[-1]
    raise Skip("no python with %s and headers (%s)" % (NEEDED, "; ".join("%s: %s" % pair for pair in tried.items())))


def environment(site):
    return dict(os.environ, PYTHONPATH=site, PYTHONDONTWRITEBYTECODE="1", PIP_DISABLE_PIP_VERSION_CHECK="1",
                PIP_ROOT_USER_ACTION="ignore")


def installed():
    """(interpreter, folder of the copy, where pip has put the package); made once."""
    with LOCK:
        if not INSTALLED:
            INSTALLED.append(install())
        if isinstance(INSTALLED[0], Exception):
            raise INSTALLED[0]
        return INSTALLED[0]


def install():
    try:
        python = interpreter()
        compiler("CC", "cc")
    except Skip as why:
        return why
    copy = os.path.join(SCRATCH, "examples", "python")
    shutil.copytree(os.path.join(ROOT, "examples", "python"), copy,
                    ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    shutil.copy(os.path.join(ROOT, "iqdb.h"), SCRATCH)
    site = os.path.join(SCRATCH, "site")
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
                           "--target", site, copy], env=environment(""), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=500)
    if done.returncode:
        return AssertionError("pip install fails:\n" + done.stdout.decode("utf-8", "replace"))
    return python, copy, site


def started(arguments, folder=None):
    """(exit status, output) of the interpreter with the package."""
    python, _, site = installed()
    done = subprocess.run([python] + arguments, env=environment(site), cwd=folder or SCRATCH, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=500)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def installs():
    _, _, site = installed()
    there = os.listdir(os.path.join(site, "iqdb"))
    assert "py.typed" in there and any(name.startswith("_native.") for name in there), there


def wants(module):
    status, output = started(["-c", "import " + module])
    if status:
        raise Skip("no %s (%s)" % (module, output.strip().split("\n")[-1]))


def own_tests(name):
    _, copy, _ = installed()
    if name in OPTIONAL:
        wants(OPTIONAL[name])
    status, output = started(["-m", "pytest", "-q", "-p", "no:cacheprovider", os.path.join(copy, "tests", name)])
    last = output.strip().split("\n")[-1]
    assert status == 0 and re.search(r"\d+ passed", last) and "skipped" not in last, output[-6000:]


def annotated():
    """Every public function has annotations for all it takes and gives, and a docstring or an evident name."""
    status, output = started(["-c", """
import inspect, typing, iqdb, iqdb.hdf5
bad = []
public = [(name, getattr(iqdb, name)) for name in iqdb.__all__]
for name, made in public + [(f.__name__, f) for f in (iqdb.hdf5.import_file, iqdb.hdf5.export_file)]:
    members = [made] if inspect.isfunction(made) else []
    if inspect.isclass(made):
        members = [m for n, m in vars(made).items() if inspect.isfunction(m) and not n.startswith("_")]
    if (inspect.isclass(made) or inspect.isfunction(made)) and not made.__doc__:
        bad.append(name + " has no docstring")
    for member in members:
        signature = inspect.signature(member)
        if signature.return_annotation is signature.empty or any(
                p.annotation is p.empty for p in signature.parameters.values() if p.name != "self"):
            bad.append(member.__qualname__ + " is not annotated")
print("\\n".join(bad) or "fine")
"""])
    assert status == 0 and output == "fine\n", output


def readme(optional):
    """The session in 'From Python', run as doctest runs it, and what goes on with it where h5py is."""
    if optional:
        wants("h5py")
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        section = re.search(r"^## From Python\n(.*?)^## ", file.read(), re.M | re.S)
    sessions = re.findall(r"^```pycon\n(.*?)^```$", section.group(1), re.M | re.S)
    assert len(sessions) == 2 and sessions[0].count(">>> ") >= 8 and "hdf5" not in sessions[0]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "session.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(sessions if optional else sessions[:1]))
        status, output = started(["-m", "doctest", path], folder)
        assert status == 0 and not output, output


def tests():
    yield "pip installs the folder", installs
    for name in sorted(os.listdir(os.path.join(ROOT, "examples", "python", "tests"))):
        if name.startswith("test_"):
            yield "pytest: " + name, lambda name=name: own_tests(name)
    yield "annotations and docstrings", annotated
    yield "README: From Python", lambda: readme(False)
    yield "README: From Python, HDF5", lambda: readme(True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as SCRATCH:
        main("python", list(tests()))
