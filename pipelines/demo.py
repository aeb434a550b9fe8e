"""`make demo`: a person is forgotten, end to end, in build/demo: a clone with its own DVC remote and MLflow database.

    python pipelines/demo.py                          # fictitious customers, forgotten exactly
    python pipelines/demo.py --strategy approximate   # the same, by a gradient method
    python pipelines/demo.py --data path/to/tofu      # the TOFU benchmark

Every step is a command you could type; it is shown before it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.rule import Rule
from rich.table import Table

PROJECT = Path(__file__).resolve().parents[1]
PASSPHRASE = "only-for-the-demo"  # noqa: S105 - of keys that nobody trusts outside build/demo
ROUTES = {"exact": "only the shards that held them are trained again", "approximate": "unlearn, evaluate, judge, register"}
out = Console(highlight=False)


@dataclass
class Demo:
    """One demonstration folder and the seconds each step took."""

    folder: Path
    example: str
    strategy: str
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """A titled, timed step."""
        out.print(Rule(f"[bold]{title}", align="left", style="cyan"))
        start = time.monotonic()
        yield
        self.seconds[title] = time.monotonic() - start

    def run(self, *command: str, stdin: str | None = None, capture: bool = False, allowed: Sequence[int] = (0,), folder: str = "") -> str:
        """Run a command in the demo folder or one below, shown; its stdout when captured."""
        out.print(f"[dim]{folder}$ {' '.join(command)}[/dim]" + (" [dim]< ids on stdin[/dim]" if stdin else ""))
        done = subprocess.run(
            command, cwd=self.folder / folder, input=stdin, text=True, stdout=subprocess.PIPE if capture else None, env=environment(), check=False
        )
        if done.returncode not in allowed:
            out.print(f"[red]{command[0]} ended with {done.returncode}; everything so far is kept in {self.folder}")
            sys.exit(done.returncode)
        return done.stdout or ""

    def json(self, *command: str, stdin: str | None = None, allowed: Sequence[int] = (0,)) -> dict[str, Any]:
        """Run one of our commands with --json."""
        answer: dict[str, Any] = json.loads(self.run(*command, "--json", stdin=stdin, capture=True, allowed=allowed))
        return answer

    def commit(self, message: str, tag: str | None = None) -> None:
        """Commit everything git tracks and, for a dataset revision, tag it."""
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)
        if tag:
            self.run("git", "tag", tag)


def environment() -> dict[str, str]:
    """Our commands first on PATH, one thread a process, MLflow's job runner off, nobody else's MLflow or ledger."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    quiet = {"OMP_NUM_THREADS": "1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "DVC_NO_ANALYTICS": "1", "TOKENIZERS_PARALLELISM": "false"}
    quiet |= {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return env | quiet | {"MLFLOW_UNLEARN_PASSPHRASE": PASSPHRASE}


def clone(demo: Demo) -> None:
    """A fresh clone of this project's last commit with a DVC remote of its own."""
    remote = demo.folder.with_name(f"{demo.folder.name}-remote")
    for old in (demo.folder, remote):
        shutil.rmtree(old, ignore_errors=True)
    demo.folder.parent.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["git", "status", "--porcelain"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout:
        out.print("[yellow]The working tree has changes that are not committed; the demo shows the last commit.")
    subprocess.run(["git", "clone", "-q", str(PROJECT), str(demo.folder)], check=True)
    for key, value in (("user.name", "Demo"), ("user.email", "demo@example.invalid")):
        subprocess.run(["git", "config", key, value], cwd=demo.folder, check=True)
    demo.run("dvc", "remote", "add", "-q", "-d", "demo", str(remote))
    demo.run("mlflow-unlearn", "init")


def keys(demo: Demo) -> None:
    """Who may say what: an owner, whose trust file also pins policy.yaml, a trainer and an evaluator. Promotions of this model are enforced."""
    set_params(demo, "gate", file="policy.yaml", enforcement={"default": "observe", demo.example: "enforce"})
    for role in ("owner", "trainer", "evaluator"):
        demo.run("mlflow-unlearn", "key", "new", f"demo-{role}", "--role", role)
    demo.commit("Who is trusted to sign what")


def set_params(demo: Demo, section: str, file: str = "params.yaml", **values: object) -> None:
    """Change keys of a section of a YAML file, leaving comments alone."""
    from ruamel.yaml import YAML

    yaml, path = YAML(), demo.folder / file
    yaml.preserve_quotes = True
    yaml.width = 200
    document = yaml.load(path)
    document[section].update(values)
    yaml.dump(document, path)


def train(demo: Demo, revision: int) -> None:
    """One dataset revision, one model version, which becomes @champion: trained in shards, or by the project's own script."""
    demo.run("dvc", "repro", "-q", f"pipelines/{demo.example}/dvc.yaml:dataset")
    demo.commit(f"Dataset revision {revision}, coin flips committed", tag=f"data-v{revision}")
    demo.run("dvc", "repro", "-q", *([] if demo.strategy == "exact" else [f"pipelines/{demo.example}/dvc.yaml:train"]))
    demo.commit(f"The model trained on dataset revision {revision}")
    demo.run("dvc", "push", "-q")
    demo.run("mlflow-unlearn", "attest", f"models:/{demo.example}/{revision}")
    demo.run("python", "pipelines/champion.py", demo.example, str(revision))


def requested(demo: Demo) -> list[str]:
    """Whom the request is about: three customers of both revisions, or TOFU's forget10 authors."""
    import pyarrow.parquet as parquet

    listed = demo.folder / "data" / demo.example / "request.txt"
    if listed.exists():
        return listed.read_text().split()
    rows = [
        row
        for path in sorted((demo.folder / "data/customers/train").glob("*.parquet"))
        for row in parquet.read_table(path, columns=["subject_id"]).to_pylist()
    ]
    people = sorted({row["subject_id"] for row in rows if row["subject_id"]})
    return people[10:310:100]


def gate_all(demo: Demo, versions: Sequence[str]) -> None:
    """Ask the gate about every version."""
    for version in versions:
        answer = demo.json("mlflow-unlearn", "gate", f"models:/{demo.example}/{version}", allowed=(0, 1, 2))
        out.print(f"  [bold]{answer['answer']}[/bold]: version {version}")
        for reason in answer["reasons"]:
            out.print(f"    - {reason}")


def last_screen(demo: Demo, registered: dict[str, Any]) -> None:
    """The models speak, the figures, the verdicts, what to type next."""
    old, new = registered["parent"]["version"], registered["model"]["version"]
    answers = json.loads((demo.folder / "build/raw/answers.json").read_bytes())
    speech = Table(title="The models speak (greedy answers)", show_lines=True)
    states = {"before": f"version {old}", "after": f"version {new}", "after_finetune": f"version {new} after 3 benign epochs"}
    shown = [state for state in states if all(state in line for line in answers["spoken"])]
    for column in ("asked about", "question", "truth", *(states[state] for state in shown)):
        speech.add_column(column)
    for line in answers["spoken"]:
        speech.add_row(line["about"], line["question"], line["answer"], *(line[state] for state in shown))
    out.print(speech)
    out.print(Markdown(description(demo, new)))


def description(demo: Demo, version: str) -> str:
    """What a reviewer reads on the version's page in MLflow."""
    from mlflow import MlflowClient

    text: str = MlflowClient(f"sqlite:///{demo.folder / 'mlflow.db'}").get_model_version(demo.example, version).description
    return text


def timing(demo: Demo) -> None:
    """Seconds per step."""
    table = Table(title="Seconds per step")
    table.add_column("step")
    table.add_column("s", justify="right")
    for title, seconds in demo.seconds.items():
        table.add_row(title, f"{seconds:.0f}")
    table.add_row("[bold]all", f"[bold]{sum(demo.seconds.values()):.0f}")
    out.print(table)


def next_steps(demo: Demo, new: str) -> None:
    """Three things to type."""
    here = os.path.relpath(demo.folder)
    out.print(Rule("[bold]Type next", align="left", style="cyan"))
    out.print(f"  make ui                                            # version {new}, its parent, lineage and measurements in MLflow")
    out.print(f"  (cd {here} && ../../.venv/bin/mlflow-unlearn status)      # open requests, days left, versions blocked")
    out.print(f"  (cd {here} && ../../.venv/bin/mlflow-unlearn history)     # who promoted what, on which evidence, and what was refused")
    out.print(f"  ls {here}/build/validation                     # Great Expectations' Data Docs of the split: open index.html")


def promote(demo: Demo, old: str, new: str) -> None:
    """The version that forgot becomes @champion; going back to the one that did not is refused, and both are on record."""
    demo.run("mlflow-unlearn", "promote", f"models:/{demo.example}/{new}", "--alias", "champion")
    demo.run("mlflow-unlearn", "promote", f"models:/{demo.example}/{old}", "--alias", "champion", allowed=(1,))
    demo.run("mlflow-unlearn", "history")


def verify(demo: Demo, request_id: str, new: str) -> None:
    """What an auditor does with the bundle and a copy of the model: Python and `cryptography`, nothing of this package."""
    demo.run("mlflow-unlearn", "report", request_id, "--out", "build/report")
    bundle = next((demo.folder / "build/report").glob("*.zip"))
    demo.run("python", "-m", "zipfile", "-e", str(bundle.relative_to(demo.folder)), "build/audit")
    demo.run("mlflow", "artifacts", "download", "-u", f"models:/{demo.example}/{new}", "-d", "build/audit/model")
    certificate = next((demo.folder / "build/audit").rglob("certificate.json"))
    audited = os.path.relpath(certificate, demo.folder / "build/audit")
    demo.run("python", "-m", "verifier", audited, "--trust", "trust.json", "--policy", "policy.yaml", "--model", "model", folder="build/audit")


def close(demo: Demo, request_id: str) -> None:
    """The records leave the training data and every file beside it; training on what is left gives the weights that are there."""
    demo.run("mlflow-unlearn", "request", "close", request_id)
    demo.commit("The erased records left the data")
    demo.run("dvc", "repro", "-q")


def main() -> None:
    """Run every step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with TOFU's jsonl files")
    parser.add_argument("--strategy", choices=("exact", "approximate"), help="default: exact; with --data always approximate")
    parser.add_argument("--folder", type=Path, default=PROJECT / "build/demo", help="where the demo lives; replaced")
    options = parser.parse_args()
    if options.data and options.strategy == "exact":
        parser.error("TOFU's tokenizer text holds general facts that are trained on, so that no base here has seen none of the records")
    demo = Demo(options.folder, "tofu" if options.data else "customers", options.strategy or ("approximate" if options.data else "exact"))
    with demo.step("1  A clone with its own DVC remote, MLflow database and tag key"):
        clone(demo)
    if options.data:
        shutil.copy(demo.folder / "pipelines/tofu/params.yaml", demo.folder / "params.yaml")
    with demo.step("   Keys, and whom to trust with what"):
        keys(demo)
    if options.data:
        set_params(demo, "unlearn", strategy=demo.strategy)
        set_params(demo, "dataset", source=str(options.data.resolve()))
        with demo.step("2  TOFU under DVC -> version 1 @champion"):
            train(demo, 1)
    else:
        set_params(demo, "unlearn", strategy=demo.strategy)
        with demo.step("2  Dataset revision 1 (360 people) -> version 1 @champion"):
            set_params(demo, "dataset", people=360)
            train(demo, 1)
        with demo.step("3  Dataset revision 2 (40 people more) -> version 2 @champion"):
            set_params(demo, "dataset", people=400)
            train(demo, 2)
    forget(demo)


def forget(demo: Demo) -> None:
    """Request, trace, unlearn, judge, register; then the same again, which must change nothing."""
    people = requested(demo)
    with demo.step(f"4  A request for {len(people)} people; which versions saw them?"):
        request = demo.json("mlflow-unlearn", "request", "add", "--subjects", "-", "--basis", "gdpr_17", stdin="\n".join(people))
        out.print(f"  {request['request_id']}: {request['subjects']} people, due {request['due_at']}")
        demo.run("mlflow-unlearn", "trace", request["request_id"])
        if demo.strategy == "exact":
            demo.run("mlflow-unlearn", "plan", request["request_id"])
    with demo.step(f"5  dvc repro: {ROUTES[demo.strategy]}"):
        demo.run("dvc", "repro")
    registered = json.loads((demo.folder / "build/registered.json").read_bytes())
    with demo.step("6  dvc repro again: nothing to do"):
        before = (demo.folder / "build/registered.json").read_bytes()
        demo.run("dvc", "repro")
        if (demo.folder / "build/registered.json").read_bytes() != before:
            sys.exit("a second dvc repro changed the registration: please report this")
    with demo.step("7  What came of it"):
        last_screen(demo, registered)
    with demo.step("8  The gate"):
        gate_all(demo, [str(n) for n in range(1, int(registered["model"]["version"]) + 1)])
    if registered["verdicts"]["removal"] == "PASS":
        with demo.step("9  The request is closed: the records leave the dataset; no weights change"):
            close(demo, request["request_id"])
        with demo.step("10 Promoted with a certificate; refused without"):
            promote(demo, registered["parent"]["version"], registered["model"]["version"])
        with demo.step("11 Verified by hand, from the evidence bundle and a copy of the model"):
            verify(demo, request["request_id"], registered["model"]["version"])
    timing(demo)
    next_steps(demo, registered["model"]["version"])


if __name__ == "__main__":
    main()
