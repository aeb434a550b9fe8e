"""What can go wrong, as types a caller can tell apart.

UnlearnError
├── ConfigError     params.yaml, policy.yaml, a command line or an environment variable is wrong
│   └── DivergedError   a loss or gradient is no longer finite, or the model has become worse than guessing
├── DataError       a dataset file lacks a column, repeats an id, cannot be read
├── LineageError    a revision, a model version or its data cannot be resolved
├── TamperedError   bytes differ from the digest that was recorded for them
├── GateError       a version may not be deployed, and the policy enforces that
├── StoreError      MLflow, DVC or the disk does not answer
└── LedgerError     an erasure request is unknown, repeated or in the wrong state

A message says where, what was found, what was expected and what to do next. It never quotes a record or an identifier.
"""


class UnlearnError(Exception):
    """Anything this project raises on purpose; the command line prints it in one line and ends with 2."""


class ConfigError(UnlearnError):
    """Settings are missing, misspelt or of the wrong type. Lists every complaint, not the first."""


class DivergedError(ConfigError):
    """Arithmetic left the finite numbers, or the model became worse than one that guesses: the learning rate is too high for this model."""


class DataError(UnlearnError):
    """A dataset does not have the shape its settings promise."""


class UnmeasurableError(UnlearnError):
    """A measure lacks what it compares with (a reference model, wrong answers, shadow models); it is then absent, by name, and never a number."""


class LineageError(UnlearnError):
    """What made a model version cannot be resolved."""


class TamperedError(UnlearnError):
    """Bytes are not the ones that were recorded."""


class GateError(UnlearnError):
    """The gate's answer is no or undecided, with every reason on a line of its own, and the policy enforces it."""


class StoreError(UnlearnError):
    """A store outside this process is unreachable or refuses."""


class LedgerError(UnlearnError):
    """The ledger of erasure requests refuses an entry or does not know it."""
