import pytest

from mlflow_unlearn import config
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.policy import Policy

PARAMS = """
model: {name: m, parent: "models:/m@champion"}
data: {name: d, path: data/train}
unlearn:
  method: {name: npo}
  optimiser: {epochs: 2, learning_rate: 1e-5}
train: {anything: goes}
"""


def written(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return path


def test_scientific_notation_is_a_number(tmp_path):
    assert config.load_params(written(tmp_path, PARAMS)).unlearn.optimiser.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("unlearn:", "unlern:", "unknown key 'unlern'; did you mean 'unlearn'"),
        ("epochs: 2", "epoch: 2", "unknown key 'epoch'; did you mean 'epochs'"),
        ("epochs: 2", "epochs: many", "epochs: expected a whole number, found 'many'"),
        ("epochs: 2", "epochs: 0", "epochs must be above zero"),
        ("name: d, path", "name: d, pth", "missing key 'path'"),
        ("unlearn:", "unlearn: [", "not YAML"),
    ],
)
def test_a_wrong_params_file_is_named_with_its_key(tmp_path, old, new, complaint):
    with pytest.raises(ConfigError, match=complaint):
        config.load_params(written(tmp_path, PARAMS.replace(old, new)))


def test_a_missing_params_file_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="mlflow-unlearn init"):
        config.load_params(tmp_path / "params.yaml")


def test_policy_keys_may_be_numbers(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("auc_margin: {400: 0.1, 800: 0.05}\n")
    assert config.load_policy(path).auc_margin == {"400": 0.1, "800": 0.05}


@pytest.mark.parametrize(("canaries", "margin"), [(399, None), (400, 0.10), (799, 0.10), (800, 0.07), (5000, 0.07)])
def test_a_margin_is_that_of_the_largest_pool_reached(canaries, margin):
    assert Policy().margin(Policy().auc_margin, canaries) == margin


def test_settings_default_to_the_git_root_and_the_environment_wins(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / "deep/er").mkdir(parents=True)
    found = config.settings(tmp_path / "deep/er", {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"})
    assert found.root == tmp_path
    assert found.tracking_uri == "http://127.0.0.1:1"
    assert found.ledger_uri == f"sqlite:///{tmp_path}/.unlearn/ledger.db"


def test_outside_git_the_error_says_git_init(tmp_path):
    with pytest.raises(ConfigError, match="git init"):
        config.settings(tmp_path, {})


def test_the_projects_own_params_and_policy_are_valid():
    assert config.load_params().model.name == "customers"
    assert config.load_policy() == Policy()


def test_records_go_by_id_in_all_revisions_or_in_none(tmp_path):
    text = PARAMS.replace("path: data/train", "path: data/train, earlier_columns: [{record: null}]")
    with pytest.raises(ConfigError, match="earlier_columns: give `record` in all of them or in none"):
        config.load_params(written(tmp_path, text))
