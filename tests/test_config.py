import pytest

from mlflow_unlearn import config
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.policy import GatePolicy, Policy

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
        ("unlearn:", "unlearn: " + "[" * 3000, "not YAML: cannot be parsed"),
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
    assert (found.key_folder, found.trust_file, found.signer) == (tmp_path / ".unlearn/keys", tmp_path / "trust.json", "")
    given = {"MLFLOW_UNLEARN_KEYS": "/k", "MLFLOW_UNLEARN_TRUST": "/t.json", "MLFLOW_UNLEARN_SIGNER": "ci"}
    elsewhere = config.settings(tmp_path, given)
    assert (str(elsewhere.key_folder), str(elsewhere.trust_file), elsewhere.signer) == ("/k", "/t.json", "ci")


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


def test_a_ledger_that_is_named_and_empty_is_not_taken_for_the_one_here(tmp_path):
    (tmp_path / ".git").mkdir()
    with pytest.raises(ConfigError, match="MLFLOW_UNLEARN_LEDGER_URI: set and empty; set it to the ledger's URI, or unset it"):
        config.settings(tmp_path, {"MLFLOW_UNLEARN_LEDGER_URI": ""})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gate: {enforcment: {}}", "unknown key 'enforcment'; did you mean 'enforcement'"),
        ("gate: {enforcement: {m: enforced}}", "expected one of observe, warn, enforce, found 'enforced'"),
        ("gate: {enforcement: {defualt: enforce}}", "'defualt' is nearly 'default'"),
        ("gate: {approvals: -1}", "approvals: expected 0 or more"),
        ("gate: {override: 1}", "expected true or false"),
        ("gate: {certificate_days: 0}", "certificate_days: expected 1 to 36500, found 0"),
        ("gate: {certificate_days: 999999999999}", "certificate_days: expected 1 to 36500, found 999999999999"),
    ],
)
def test_a_gate_with_a_typo_is_refused_and_not_left_open(tmp_path, text, said):
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        config.load_policy(path)


def test_what_is_enforced_is_what_the_policy_says_of_a_model_or_else_of_all():
    gate = GatePolicy(enforcement={"default": "warn", "m": "enforce"})
    assert [gate.enforced(name) for name in ("m", "n")] == ["enforce", "warn"]
    assert GatePolicy(enforcement={"m": "enforce"}).enforced("n") == GatePolicy().enforced("m") == "observe"
