"""The gate on ancestors that are no longer those that were signed: the same name, number or weights, and something else behind them."""

from __future__ import annotations

from dataclasses import replace

from deployed import FORGOT, TRAINED, World, _built, asked_template, world  # noqa: F401 - fixtures

from mlflow_unlearn.adapters.statements import Statements
from mlflow_unlearn.commands.gating import gate_version
from mlflow_unlearn.lineage import ModelVersion
from mlflow_unlearn.verifier import subject_of


def reasons(model: ModelVersion) -> str:
    found = gate_version(f"models:/{model}")
    assert found["answer"] == "no"
    return "\n".join(found["reasons"])


def test_a_parent_that_was_deleted_and_made_anew_from_clean_data_clears_nobody(world: World) -> None:  # noqa: F811
    parent = world.version(3.0, world.state("v1"), name="p")
    world.attest(parent)
    child = world.version(4.0, world.state("v2"), name="c", tags={"unlearn.base_model": f"models:/{parent}"})
    world.attest(child)
    assert "affected" in reasons(child)
    world.bench.registry.client.delete_registered_model("p")
    assert world.version(3.0, world.state("v2"), name="p") == parent
    world.attest(parent)
    assert "c/1: the registry says otherwise than what was signed: p/1 was registered again since" in reasons(child)


def test_a_certificate_is_about_the_weights_that_its_parent_was_signed_with(world: World) -> None:  # noqa: F811
    said = world.said(FORGOT, TRAINED, *world.bench.registry.closure(FORGOT)[0].requests)
    parent = replace(said.unlearned.parent, tensor_digest="f" * 64)
    changed = {name: replace(getattr(said, name), parent=parent) for name in ("unlearned", "evaluation", "split")}
    world.keep(FORGOT, replace(said, **changed))
    assert "m/1: its own statement is about the weights" in reasons(FORGOT)


def test_weights_that_lay_there_for_a_while_are_not_the_ancestors(world: World) -> None:  # noqa: F811
    place = Statements(world.bench.registry).folder(FORGOT) / "model.safetensors"
    true, other = place.read_bytes(), world.version(9.0, world.state("v2"))
    place.write_bytes((Statements(world.bench.registry).folder(other) / "model.safetensors").read_bytes())
    child = world.version(4.0, world.state("v2"), tags={"unlearn.base_model": f"models:/{FORGOT}"})
    world.attest(child)
    place.write_bytes(true)
    found = subject_of(place.parent)[0]["digest"]["tensors"][:16]
    assert f"m/2: its own statement is about the weights {found}, signed as an ancestor are" in reasons(child)
