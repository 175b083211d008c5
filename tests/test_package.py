import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError

ROOT = Path(pipeline.__file__).parent
MODULES = {
    ".".join(("pipeline", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
HEAVY = (
    "apache_beam",
    "bokeh",
    "duckdb",
    "jinja2",
    "numpy",
    "openvino",
    "pyarrow",
    "sklearn",
    "tensorflow",
    "tensorflow_hub",
    "tfx_bsl",
)

# A folder imports only from folders in the rows above its own, wherever in a module the import is.
ROWS = (
    "core",
    "storage images",
    "tfrecords savedmodel",
    "inputs mobilenet model_formats",
    "hub",
    "engines",
    "embedding",
    "dataset finetune",
    "report export",
    "beam",
    "job",
    "commands",
)
LEVEL = {folder: level for level, row in enumerate(ROWS) for folder in row.split()}
DOORS = ("__main__", "run", "verify", "compact", "neighbours", "hub.__main__", "report.__main__", "export.__main__")
"""Modules that `python -m` runs, or that users import by that name; each only calls what lies in a folder."""


def test_the_public_names():
    assert pipeline.__all__ == [
        "EmbedImages",
        "Embedder",
        "EmbeddingModelHandler",
        "ReadImages",
        "RunConfig",
        "WriteEmbeddings",
        "read_embeddings",
        "read_table",
        "run",
    ]
    for name in pipeline.__all__:
        assert name in dir(pipeline)
        assert callable(getattr(pipeline, name))


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match=r"^module 'pipeline' has no attribute 'embed'$"):
        _ = pipeline.embed


def run_python(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT.parent).stdout


@pytest.mark.parametrize(
    "code",
    [
        "import pipeline",
        "from pipeline import RunConfig; RunConfig.from_flags(input='a', module='b', output='c')",
        *(
            "import contextlib, io, runpy, sys\n"
            f"sys.argv = ['{module}', '--help']\n"
            "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
            f"    runpy.run_module('{module}', run_name='__main__')"
            for module in ("pipeline.run", "pipeline.hub", "pipeline.report", "pipeline.neighbours", "pipeline.export")
        ),
    ],
)
def test_heavy_packages_are_only_loaded_when_they_are_needed(code):
    assert run_python(f"{code}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules])") == "[]\n"


def test_help_and_mistakes_of_the_command(capsys):
    from pipeline.run import main

    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "--input PATTERN" in capsys.readouterr().out
    assert main([]) == 2
    assert capsys.readouterr().err == "error: no input: --input=FILE, DIRECTORY or GLOB is required\n"


@pytest.mark.parametrize("imported_first", [False, True])
def test_run_is_a_function_whether_or_not_its_command_is_loaded(imported_first, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "pipeline.run", raising=False)
    monkeypatch.delattr(pipeline, "run", raising=False)
    if imported_first:
        importlib.import_module("pipeline.run")
    config = RunConfig.from_flags(input=tmp_path / "none", module="untrained:mobilenet_v2_035_96", output=tmp_path)
    with pytest.raises(InputError, match=r"^no input matched"):
        pipeline.run(config)


def imports_of(path):
    """The modules of this package that a module imports, except for type checkers alone."""
    found = set()

    class Visitor(ast.NodeVisitor):
        def visit_If(self, node):
            if ast.unparse(node.test) != "TYPE_CHECKING":
                self.generic_visit(node)

        def visit_Import(self, node):
            found.update(alias.name for alias in node.names)

        def visit_ImportFrom(self, node):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else node.module)

    Visitor().visit(ast.parse(path.read_text()))
    return {name.removeprefix("pipeline.") for name in found & MODULES.keys()}


def folder_of(name):
    return name.partition(".")[0]


@pytest.mark.parametrize("name", [name for name in MODULES if MODULES[name].name != "__init__.py"])
def test_imports_run_one_way(name):
    short = name.removeprefix("pipeline.")
    if short in (*DOORS, "testing"):
        return
    own = folder_of(short)
    assert own in LEVEL, f"folder pipeline/{own} has no place in ROWS above yet"
    for imported in imports_of(MODULES[name]):
        folder = folder_of(imported)
        assert folder == own or LEVEL.get(folder, len(ROWS)) < LEVEL[own], (
            f"{name} imports pipeline.{imported}, whose folder does not stand above its own in ROWS"
        )


def test_no_module_imports_itself_by_a_detour():
    imports = {name.removeprefix("pipeline."): imports_of(path) for name, path in MODULES.items()}
    while leaves := [name for name, imported in imports.items() if not imported & imports.keys()]:
        for name in leaves:
            del imports[name]
    assert not imports, f"these modules import each other: {sorted(imports)}"


def test_every_module_is_used():
    used = {name.removeprefix("pipeline.") for path in MODULES.values() for name in imports_of(path)}
    lazy = re.findall(r'"pipeline\.([\w.]+)', "".join(path.read_text() for path in MODULES.values()))
    modules = {name.removeprefix("pipeline.") for name, path in MODULES.items() if path.name != "__init__.py"}
    assert modules - used - set(lazy) - {*DOORS, "testing"} == set()


def test_the_rows_name_each_folder_once():
    assert sorted(" ".join(ROWS).split()) == sorted(LEVEL)
    assert set(LEVEL) == {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}


@pytest.mark.parametrize("door", DOORS)
def test_doors_hold_no_logic(door):
    path = ROOT / f"{door.replace('.', '/')}.py"
    assert not path.exists() or len(path.read_text().splitlines()) <= 25


def test_packages_only_collect():
    for name, path in MODULES.items():
        if path.name == "__init__.py":
            own = name.removeprefix("pipeline.") + "."
            assert all(found.startswith(own) for found in imports_of(path)), name


@pytest.mark.parametrize("name", MODULES)
def test_no_module_is_too_long(name):
    assert len(MODULES[name].read_text().splitlines()) <= 350


def test_no_test_module_is_too_long():
    tests = Path(__file__).parent
    lengths = {path.relative_to(tests).as_posix(): len(path.read_text().splitlines()) for path in tests.rglob("*.py")}
    too_long = {name: lines for name, lines in lengths.items() if lines > 500}
    assert not too_long, "expected at most 500 lines; cut a module where its subject has a seam"
