"""The house rules that a reader would otherwise have to trust: who may import whom, and how large anything may grow.

The ranks are those of docs/design.md. Imports under `if TYPE_CHECKING:` cost nothing at run time and bind nobody.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import mlflow_unlearn
from mlflow_unlearn.cli import STAGES

PACKAGE = Path(mlflow_unlearn.__file__).parent
RANKS = {
    0: "errors lineage records exactness measurements",
    1: (
        "statements verifier dsse signing_keys trust json_schemas "
        "protocols config params policy catalog documents digests siphash fingerprints canaries commitments proofs deadlines reasons losses "
        "stats epsilon roc equivalence indistinguishability three_samples power readings forget_quality model_utility privacy_leak asking "
        "calibrated_gap figures questions closure provenance story ancestry picture layers drawing sisa ensembles"
    ),
    2: "engine",
    3: "methods metrics attacks",
    4: (
        "trace plan forecast graph split validate unlearn evaluate judge leakage margins exact_conditions shared_state gate gate_values ruling "
        "guard review adapters testing trial tofu_report muse_report audit audit_sets deep deep_probes deep_subjects shadow_probes"
    ),
    5: "plugin",
    6: "stages commands cli server",
}
RANK = {name: rank for rank, names in RANKS.items() for name in names.split()}
VERBS = {"trace", "plan", "forecast", "graph", "split", "validate", "unlearn", "evaluate", "judge", "shared_state", "gate", "guard", "review"}
HEAVY_OWNERS = {
    "dvc": {"adapters"},
    "dvc_data": {"adapters"},
    "mlflow": {"adapters", "plugin", "server"},
    "great_expectations": {"adapters"},
    "duckdb": {"adapters"},
    "ibis": {"adapters"},
    "polars": {"adapters"},
    "polars_hash": {"adapters"},
    "sqlalchemy": {"adapters"},
    "transformers": {"adapters"},
    "peft": {"adapters"},
    "tokenizers": {"adapters"},
    "pyarrow": {"adapters"},
    "matplotlib": {"adapters"},
    "torch": {"adapters", "engine", "methods", "losses", "unlearn", "testing", "trial"},
    "lm_eval": {"adapters"},
    "boto3": {"adapters", "server"},
    "botocore": {"adapters", "server"},
    "click": {"cli"},
    "rich": {"commands", "stages"},
}
GLOBAL_SEEDS = {"manual_seed", "manual_seed_all", "seed", "set_seed", "seed_everything"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def named(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


every_module = pytest.mark.parametrize("path", MODULES, ids=named)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs: all but what a type checker alone reads."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from running(child)


def part(path: Path) -> str:
    """The first word below the package: a module of the top level or a folder."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Dotted names of everything a module imports, relative ones resolved."""
    home = (PACKAGE.name, *path.relative_to(PACKAGE).parts[:-1])
    for node in running(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*home[: len(home) - node.level + 1], *filter(None, [node.module])] if node.level else [str(node.module)]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """Parts of this package that a module imports."""
    return {name.split(".")[1] for name in imported(path) if name.startswith(f"{PACKAGE.name}.")} & RANK.keys()


def test_every_part_has_a_rank() -> None:
    assert {part(path) for path in MODULES} - {"__init__"} == RANK.keys()


@every_module
def test_imports_point_down_the_ranks_only(path: Path) -> None:
    if part(path) != "__init__":
        assert not {name: RANK[name] for name in own_imports(path) if RANK[name] > RANK[part(path)]}


@every_module
def test_verbs_import_neither_one_another_nor_adapters_and_adapters_import_no_verb(path: Path) -> None:
    if part(path) in VERBS:
        assert not own_imports(path) & ((VERBS - {part(path)}) | {"adapters"})
    if part(path) == "adapters":
        assert not own_imports(path) & VERBS


@every_module
def test_methods_metrics_and_attacks_do_not_know_their_siblings(path: Path) -> None:
    if part(path) in RANKS[3].split():
        assert not own_imports(path) & set(RANKS[3].split())


@every_module
def test_only_their_owners_import_heavy_libraries(path: Path) -> None:
    libraries = {name.split(".")[0] for name in imported(path)}
    assert not {library for library in libraries & HEAVY_OWNERS.keys() if part(path) not in HEAVY_OWNERS[library]}


@every_module
def test_a_module_says_what_it_is_and_stays_within_300_lines(path: Path) -> None:
    assert ast.get_docstring(tree(path))
    assert len(path.read_text().splitlines()) <= 300


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines below the signature, docstring not counted."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body and body[-1].end_lineno else 0


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@every_module
def test_no_function_is_longer_than_60_lines(path: Path) -> None:
    assert not {each.name: body_lines(each) for each in functions(path) if body_lines(each) > 60}


def test_half_of_all_functions_fit_in_8_lines() -> None:
    lengths = sorted(body_lines(each) for path in MODULES for each in functions(path))
    assert lengths[len(lengths) // 2] <= 8
    assert lengths[len(lengths) * 95 // 100] <= 35


@every_module
def test_the_library_neither_asserts_nor_prints_nor_catches_everything(path: Path) -> None:
    for node in ast.walk(tree(path)):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: an assert vanishes under -O; raise"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: a bare except"
            assert "Exception" not in ast.unparse(node.type).replace("(", " ").replace(",", " ").replace(")", " ").split(), (
                f"line {node.lineno}: too wide"
            )
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            assert part(path) in ("cli", "stages"), f"line {node.lineno}: results are returned, only the command line prints"


@every_module
def test_nothing_seeds_the_process(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in GLOBAL_SEEDS:
            owner = ast.unparse(node.func.value)
            assert owner not in ("torch", "torch.cuda", "random", "np.random", "numpy.random", "transformers"), (
                f"line {node.lineno}: {owner} is global"
            )


def test_every_directory_of_code_is_a_package() -> None:
    assert all((path.parent / "__init__.py").exists() for path in MODULES)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_thin(name: str) -> None:
    """Load, read, one verb, write, say a line: at most 40 lines of code."""
    lines = (PACKAGE / "stages" / f"{name}.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 40
