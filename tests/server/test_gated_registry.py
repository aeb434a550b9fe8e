"""MLflow's own registry with the gate on: models without guarded aliases, and prompts, behave as they do without it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from asked_repository import asked_template  # noqa: F401 - a fixture
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_unlearn.commands.scaffolding import scaffold
from mlflow_unlearn.server.registry_store import GatedStore


@pytest.fixture(scope="module")
def client(asked_template: Path, mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:  # noqa: F811
    """A project that was begun yesterday: nobody signed anything, nobody asked for anything."""
    root = tmp_path_factory.mktemp("plain") / "project"
    shutil.copytree(asked_template, root, symlinks=True)
    shutil.copy(mlflow_template, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        scaffold(Path("unlearn"), model="m", data="data/train")
        patch.setenv("MLFLOW_UNLEARN_PROJECT", str(root / "unlearn"))
        database = f"sqlite:///{root}/mlflow.db"
        made = MlflowClient(database, f"unlearn-{database}")
        assert isinstance(made._get_registry_client().store, GatedStore)
        yield made
        made._get_registry_client().store.engine.dispose()


@pytest.fixture
def name(client: MlflowClient, request: pytest.FixtureRequest) -> str:
    """A registered model of this test's own."""
    made = request.node.name.replace("[", "-").replace("]", "")
    client.create_registered_model(made, tags={"team": "a"}, description="a model")
    return made


def versions(client: MlflowClient, name: str, number: int, tmp_path: Path) -> list[str]:
    """With files of their own."""
    found = []
    for each in range(number):
        (tmp_path / f"{each}").mkdir()
        (tmp_path / f"{each}/MLmodel").write_text("flavors: {}\n")
        found.append(str(client.create_model_version(name, (tmp_path / f"{each}").as_uri()).version))
    return found


def test_models_are_made_described_found_and_deleted(client: MlflowClient, name: str):
    with pytest.raises(MlflowException, match="already exists") as told:
        client.create_registered_model(name)
    assert told.value.error_code == "RESOURCE_ALREADY_EXISTS"
    client.update_registered_model(name, "another description")
    client.set_registered_model_tag(name, "team", "b")
    client.set_registered_model_tag(name, "region", "eu")
    client.delete_registered_model_tag(name, "region")
    found = client.get_registered_model(name)
    assert (found.description, found.tags) == ("another description", {"team": "b"})
    client.delete_registered_model(name)
    with pytest.raises(MlflowException, match="not found") as told:
        client.get_registered_model(name)
    assert told.value.error_code == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.parametrize("wrong", ["", None, "a/b", "a:b"])
def test_names_that_mlflow_refuses_are_refused(client: MlflowClient, wrong):
    with pytest.raises(MlflowException):
        client.create_registered_model(wrong)


def test_models_are_searched_in_order_and_by_pages(client: MlflowClient):
    names = [f"page-{number:02}" for number in range(7)]
    for each in reversed(names):
        client.create_registered_model(each, tags={"even": str(int(each[-1]) % 2 == 0)})
    found, token = [], None
    while token is None or token:
        page = client.search_registered_models("name LIKE 'page-%'", max_results=3, order_by=["name DESC"], page_token=token)
        found, token = [*found, *(each.name for each in page)], page.token or ""
    assert found == names[::-1]
    even = client.search_registered_models("name LIKE 'page-%' AND tags.even = 'True'")
    assert [each.name for each in even] == names[::2]
    with pytest.raises(MlflowException, match="Invalid"):
        client.search_registered_models("nme = 'x'")


def test_versions_are_numbered_described_tagged_found_and_deleted(client: MlflowClient, name: str, tmp_path: Path):
    assert versions(client, name, 3, tmp_path) == ["1", "2", "3"]
    client.update_model_version(name, "2", "the second")
    client.set_model_version_tag(name, "2", "k", "v")
    found = client.search_model_versions(f"name = '{name}'", order_by=["version_number ASC"])
    assert [(each.version, each.description, each.tags) for each in found] == [(1, None, {}), (2, "the second", {"k": "v"}), (3, None, {})]
    assert [each.version for each in client.search_model_versions(f"name = '{name}' AND tags.k = 'v'")] == [2]
    assert len(client.search_model_versions(f"name = '{name}'", max_results=2)) == 2
    client.delete_model_version_tag(name, "2", "k")
    client.delete_model_version(name, "3")
    with pytest.raises(MlflowException, match="not found"):
        client.get_model_version(name, "3")
    assert client.get_model_version_download_uri(name, "2") == (tmp_path / "1").as_uri()


def test_a_version_of_a_model_that_is_not_there_is_not_made_and_nothing_is_left_of_it(client: MlflowClient, tmp_path: Path):
    with pytest.raises(MlflowException, match="not found"):
        client.create_model_version("nobody", tmp_path.as_uri())
    assert client.search_model_versions("name = 'nobody'") == []


@pytest.mark.parametrize("number", ["99999999999999999999", str(1 << 31), "0", "-1", "\u00b2", "1.5", "x"])
def test_a_number_that_no_version_has_is_told_so_whatever_it_is_asked_for(client: MlflowClient, name: str, number: str, tmp_path: Path):
    versions(client, name, 1, tmp_path)
    for ask in (
        client.get_model_version,
        client.get_model_version_download_uri,
        client.delete_model_version,
        lambda name, number: client.update_model_version(name, number, "x"),
        lambda name, number: client.set_model_version_tag(name, number, "k", "v"),
        lambda name, number: client.set_model_version_tag(name, number, "unlearn.parent", "m/1"),
        lambda name, number: client.set_registered_model_alias(name, "blue", number),
    ):
        with pytest.raises(MlflowException) as told:
            ask(name, number)
        assert told.value.get_http_status_code() in (400, 404)
    if number.isdigit():
        with pytest.raises(MlflowException) as told:
            client.create_model_version(name, f"models:/{name}/{number}")
        assert told.value.get_http_status_code() in (400, 404)


@pytest.mark.parametrize(
    "source", ["unlearn-file:///etc", "unlearn-s3://bucket/key", "Unlearn-File:///etc", " unlearn-file:///etc", "S3://b/k"], ids=range(5)
)
def test_nothing_is_registered_by_a_name_that_only_the_server_gives(client: MlflowClient, name: str, source: str):
    store = client._get_registry_client().store
    with pytest.raises(MlflowException, match="refused by mlflow-unlearn: register") as told:
        store.create_model_version(name, source)
    assert told.value.error_code == "PERMISSION_DENIED"
    assert client.search_model_versions(f"name = '{name}'") == []


def test_aliases_are_set_moved_read_and_deleted_and_go_with_their_version(client: MlflowClient, name: str, tmp_path: Path):
    versions(client, name, 2, tmp_path)
    client.set_registered_model_alias(name, "blue", "1")
    client.set_registered_model_alias(name, "green", "1")
    client.set_registered_model_alias(name, "blue", "2")
    assert client.get_registered_model(name).aliases == {"blue": 2, "green": 1}
    assert client.get_model_version(name, "2").aliases == ["blue"]
    assert client.get_model_version_by_alias(name, "latest").version == 2
    client.delete_registered_model_alias(name, "green")
    client.delete_registered_model_alias(name, "never-there")
    client.delete_model_version(name, "2")
    assert client.get_registered_model(name).aliases == {}
    with pytest.raises(MlflowException, match="not found"):
        client.get_model_version_by_alias(name, "blue")


@pytest.mark.parametrize("alias", ["v1", "latest", "", "x" * 300])
def test_aliases_that_mlflow_refuses_are_refused(client: MlflowClient, name: str, alias: str, tmp_path: Path):
    versions(client, name, 1, tmp_path)
    with pytest.raises(MlflowException):
        client.set_registered_model_alias(name, alias, "1")


def test_under_a_project_in_which_nobody_signed_anything_a_guarded_alias_is_set_and_observed(client: MlflowClient, name: str, tmp_path: Path):
    versions(client, name, 1, tmp_path)
    client.set_registered_model_alias(name, "champion", "1")
    assert client.get_model_version_by_alias(name, "champion").version == 1
    store = client._get_registry_client().store
    with store.engine.connect() as connection:
        found = [each.entry for each in store.warden.clerk.log.entries(connection) if each.entry.model == name]
    assert next((each.action, each.outcome, each.answer) for each in found) == ("set alias", "observed", "undecided")


def test_a_model_is_renamed_with_its_versions_and_aliases(client: MlflowClient, name: str, tmp_path: Path):
    versions(client, name, 1, tmp_path)
    client.set_registered_model_alias(name, "blue", "1")
    client.rename_registered_model(name, f"{name}-new")
    assert client.get_model_version_by_alias(f"{name}-new", "blue").version == 1
    assert client.get_model_version(f"{name}-new", "1").name == f"{name}-new"
    with pytest.raises(MlflowException, match="not found"):
        client.get_registered_model(name)
    client.create_registered_model(name)
    with pytest.raises(MlflowException, match="already exists"):
        client.rename_registered_model(name, f"{name}-new")


def test_stages_that_are_not_guarded_are_moved_and_archive_what_was_there(client: MlflowClient, name: str, tmp_path: Path):
    versions(client, name, 2, tmp_path)
    store = client._get_registry_client().store
    store.transition_model_version_stage(name, "1", "Staging", archive_existing_versions=False)
    store.transition_model_version_stage(name, "2", "Staging", archive_existing_versions=True)
    assert [(each.version, each.current_stage) for each in store.get_latest_versions(name)] == [(1, "Archived"), (2, "Staging")]
    with pytest.raises(MlflowException, match="Invalid Model Version stage"):
        store.transition_model_version_stage(name, "1", "Nowhere", archive_existing_versions=False)


def test_a_copy_is_a_version_of_another_model(client: MlflowClient, name: str, tmp_path: Path):
    versions(client, name, 1, tmp_path)
    client.set_model_version_tag(name, "1", "k", "v")
    copied = client.copy_model_version(f"models:/{name}/1", f"{name}-copy")
    assert (copied.name, copied.version, copied.tags) == (f"{name}-copy", 1, {"k": "v"})
    assert client.get_model_version_download_uri(f"{name}-copy", "1") == (tmp_path / "0").as_uri()
    with pytest.raises(MlflowException, match="not found"):
        client.copy_model_version(f"models:/{name}/7", f"{name}-copy")


def test_prompts_are_registered_and_their_aliases_are_nobodys_business(client: MlflowClient):
    for text in ("Hello {{name}}", "Good day {{name}}"):
        client.register_prompt("greeting", text, tags={"k": "v"})
    client.set_prompt_alias("greeting", "champion", 2)
    client.set_prompt_alias("greeting", "production", 1)
    assert client.load_prompt("prompts:/greeting@champion").template == "Good day {{name}}"
    client.set_prompt_alias("greeting", "champion", 1)
    assert client.load_prompt("prompts:/greeting@champion").version == 1
    client.delete_prompt_alias("greeting", "champion")
    client.delete_prompt_version("greeting", "2")
    assert [each.name for each in client.search_prompts()] == ["greeting"]


def test_a_prompt_of_an_enforced_name_stays_ungated(client: MlflowClient, monkeypatch: pytest.MonkeyPatch):
    mlflow.set_tracking_uri(client.tracking_uri)
    mlflow.set_registry_uri(client._registry_uri)
    mlflow.genai.register_prompt("m", "One {{x}}")
    mlflow.genai.set_prompt_alias("m", "champion", 1)
    assert mlflow.genai.load_prompt("prompts:/m@champion").template == "One {{x}}"


def test_webhooks_of_the_registry_are_kept(client: MlflowClient):
    assert list(client.list_webhooks()) == []
