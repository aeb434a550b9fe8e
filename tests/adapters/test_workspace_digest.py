"""DVC's md5 without DVC: whatever lies there, it is what `dvc add` records."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_unlearn.adapters.dvc_templates import read_yaml
from mlflow_unlearn.adapters.workspace_digest import digest_of
from mlflow_unlearn.errors import LineageError

DVC = str(Path(sys.executable).parent / "dvc")
SHAPES: dict[str, dict[str, bytes]] = {
    "file.csv": {"": b"id\n1\n"},
    "windows.csv": {"": b"id\r\n1\r\n"},
    "nothing.csv": {"": b""},
    "zeros.bin": {"": bytes(3_000_000)},
    "plain": {"a.csv": b"id\n1\n", "b.csv": b"id\r\n2\r\n"},
    "nested": {"z": b"1", "a/z": b"2", "a/b/c/d": b"3", "a-b": b"4", "a.b/c": b"5"},
    "unicode": {"\u00e9t\u00e9.csv": b"1", "e\u0301te\u0301.csv": b"2", "\u65e5\u672c/\U0001f600.csv": b"3"},
    "awkward": {"with space": b"1", "it's": b"2", 'a "quote"': b"3", "#hash": b"4", "new\nline": b"5"},
    "hidden": {".secret": b"1", ".gitignore": b"*\n", "a/.keep": b""},
    "leftover": {".git/HEAD": b"x", ".hg/x": b"x", "sub/.git": b"x", "kept/.hg": b"x", "a": b"1"},
    "foreign": {"project/.dvc/config": b"", "project/data": b"1", "a": b"2"},
    "ignored": {"keep.csv": b"1", "drop.tmp": b"2", "deep/drop.tmp": b"3", "cache/x": b"4", "deep/other": b"5"},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every shape under `dvc add`."""
    root = tmp_path_factory.mktemp("shapes")
    subprocess.run([DVC, "init", "-q", "--no-scm"], cwd=root, check=True, capture_output=True)
    for name, files in SHAPES.items():
        for relpath, content in files.items():
            (root / "data" / name / relpath).parent.mkdir(parents=True, exist_ok=True)
            (root / "data" / name / relpath).write_bytes(content)
    (root / "data/empty").mkdir()
    (root / "data/linked").mkdir()
    (root / "data/linked/file").symlink_to(root / "data/file.csv")
    (root / "data/linked/folder").symlink_to(root / "data/plain")
    (root / "data/.dvcignore").write_text("/ignored/**/*.tmp\n/ignored/cache/\n")
    added = [f"data/{name}" for name in (*SHAPES, "empty", "linked")]
    subprocess.run([DVC, "add", "-q", *added], cwd=root, check=True, capture_output=True)
    return root


@pytest.mark.parametrize("name", [*SHAPES, "empty", "linked"])
def test_it_is_what_dvc_add_records(project: Path, name: str) -> None:
    recorded = read_yaml((project / f"data/{name}.dvc").read_bytes())["outs"][0]["md5"]
    assert digest_of(project / "data" / name, project) == recorded


def test_without_patterns_it_is_the_same_and_does_not_load_dvc(project: Path) -> None:
    recorded = {name: read_yaml((project / f"data/{name}.dvc").read_bytes())["outs"][0]["md5"] for name in SHAPES if name != "ignored"}
    (project / "data/.dvcignore").rename(project / "aside")
    code = "import sys; from pathlib import Path; from mlflow_unlearn.adapters.workspace_digest import digest_of\n"
    code += f"for name, md5 in {recorded!r}.items():\n    assert digest_of(Path('data', name).absolute(), Path.cwd()) == md5, name\n"
    done = subprocess.run([sys.executable, "-c", code + "assert 'dvc' not in sys.modules"], cwd=project, text=True, capture_output=True, check=False)
    (project / "aside").rename(project / "data/.dvcignore")
    assert done.returncode == 0, done.stderr


def test_what_is_not_there_has_no_digest(tmp_path: Path) -> None:
    assert digest_of(tmp_path / "gone", tmp_path) is None


@pytest.mark.parametrize(
    ("content", "hashed"), [(b"id\r\n1\r\n", b"id\n1\n"), (b"\x00\r\n", b"\x00\r\n"), (b"\xff\xfe\r\n", b"\xff\xfe\r\n"), (b"", b"")]
)
def test_dvc_2_unified_line_ends_of_text_alone(tmp_path: Path, content: bytes, hashed: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert digest_of(tmp_path / "file", tmp_path, unified_ends=True) == hashlib.md5(hashed).hexdigest()
    assert digest_of(tmp_path / "file", tmp_path) == hashlib.md5(content).hexdigest()


def test_a_folder_with_rules_of_its_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/.dvcignore").write_text("*.tmp\n")
    with pytest.raises(LineageError, match=r"data: holds a \.dvcignore, and DVC tracks no such folder; move it above"):
        digest_of(tmp_path / "data", tmp_path)


def test_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/link").symlink_to("nowhere")
    with pytest.raises(LineageError, match=r"data: a file in it cannot be read \(No such file or directory\)"):
        digest_of(tmp_path / "data", tmp_path)
