"""Who may import whom, and that importing does nothing else."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import heed

PACKAGE = Path(heed.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# A file imports only from groups above its own, or from its own folder; those that share a line do not import each other.
ORDER = [
    ["errors", "hints"],
    ["config", "files", "device", "terminal"],
    ["model", "data", "metrics"],
    ["decode"],
    ["tasks", "adapters"],
    ["run", "inputs"],
    ["evaluation", "inspection", "convert", "prompt"],
    ["training"],
    ["report"],
    ["verbs", "demo"],
    ["experiments"],
    ["bench"],  # its own folder beside the package
    ["cli"],
]
RANK = {group: rank for rank, groups in enumerate(ORDER) for group in groups}
BESIDE = {("demo", "verbs")}  # the demo is a verb that calls others


def module_name(path: Path) -> str:
    return ".".join(["heed", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


def group_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def ours(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and group of everything of heed that a file imports; `import heed` alone is the version and loads nothing."""
    yield from ((line, group_of(name)) for line, name in imports(path) if name.startswith("heed."))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_upwards(path: Path) -> None:
    group = group_of(module_name(path))
    if not group:  # the package itself hands out names of any module, when they are first used
        return
    assert group in RANK, f"{path}: {group} has no place in the order of imports; give it one above"
    for line, other in ours(path):
        allowed = other == group or RANK[other] < RANK[group] or (group, other) in BESIDE
        assert allowed, f"{path}:{line}: {group} must not import {other}"


FORBIDDEN = [
    ("model", {"heed.files", "heed.device", "heed.data", "pathlib", "os", "io", "json", "tokenizers", "safetensors"}),
    ("data", {"heed.model", "heed.tasks", "heed.decode"}),
    ("decode", {"heed.data", "tokenizers"}),
    ("metrics", {"heed.model", "heed.data", "torch"}),
]


@pytest.mark.parametrize(("group", "forbidden"), FORBIDDEN, ids=[group for group, _ in FORBIDDEN])
def test_a_layer_sees_nothing_of_what_is_not_its_business(group: str, forbidden: set[str]) -> None:
    for path in FILES:
        if group_of(module_name(path)) == group:
            for line, name in imports(path):
                assert not any(f"{name}.".startswith(f"{other}.") for other in forbidden), f"{path}:{line}: {group} must not import {name}"


def is_definition(node: ast.stmt) -> bool:
    """Whether a statement at the top of a module only names something."""
    if isinstance(node, ast.If):  # if TYPE_CHECKING, and if __name__ == "__main__"
        condition = ast.unparse(node.test)
        return condition in ("TYPE_CHECKING", "__name__ == '__main__'")
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return isinstance(node, kinds)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_module_only_defines_names(path: Path) -> None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        assert is_definition(node), f"{path}:{node.lineno}: runs at import: {ast.unparse(node)[:80]}"


def run_python(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, cwd=folder, check=False)


IMPORT_ALL = """
import importlib, logging, signal, threading
import numpy, torch
torch.manual_seed(3); numpy.random.seed(3)

def state():
    torch_settings = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(), torch.cuda.is_initialized()
    seeds = torch.random.get_rng_state().tolist(), numpy.random.get_state()[1].tolist()
    handlers = logging.root.handlers[:], logging.root.level, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    return torch_settings, seeds, handlers, threading.active_count()

before = state()
for name in NAMES:
    importlib.import_module(name)
assert state() == before
"""


def test_importing_every_module_changes_and_writes_nothing(tmp_path: Path) -> None:
    names = [module_name(path) for path in FILES]
    done = run_python(f"NAMES = {names!r}\n{IMPORT_ALL}", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


HEAVY = {"torch", "numpy", "pyarrow", "tokenizers", "matplotlib"}


def test_importing_heed_loads_no_heavy_library(tmp_path: Path) -> None:
    done = run_python(f"import sys, heed; print({HEAVY!r} & set(sys.modules))", tmp_path)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "set()", "")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_and_version_do_not_wait_for_torch(tmp_path: Path, arguments: list[str]) -> None:
    program = (
        f"import sys; sys.argv = ['heed', *{arguments!r}]\n"
        "from heed.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    code = stop.code\n"
        f"print(code, {HEAVY!r} & set(sys.modules), file=sys.stderr)"
    )
    done = run_python(program, tmp_path)
    assert done.stderr.strip() == "0 set()"
    assert "heed" in done.stdout


def test_every_public_name_is_there_and_listed() -> None:
    assert sorted(heed.__all__) == heed.__all__
    assert all(getattr(heed, name) is not None for name in heed.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = heed.nothing
