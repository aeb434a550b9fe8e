"""Is what a certificate says so? For auditors: Python and `cryptography`, no network, nothing else of this project.

    python -m verifier certificate.json --trust trust.json --model FOLDER

Copy this folder anywhere and run it from beside it. `documents` (bytes to values), `envelopes` (who signed), `model_files` (which model) and
`answer` say whether a statement is authentic and about this model. `counting` (statistics), `figures`, `rules` and `exact_rules` take no figure at
its word: limits, p-values, epsilon and the verdict are computed again from ranks, counts and values. `merkle` checks proofs of absence.
"""

from .answer import Report as Report
from .answer import counted as counted
from .answer import in_shape as in_shape
from .answer import verify as verify
from .documents import RefusedError as RefusedError
from .documents import UndecidedError as UndecidedError
from .documents import read_json as read_json
from .envelopes import Envelope as Envelope
from .envelopes import Key as Key
from .envelopes import Statement as Statement
from .envelopes import Trust as Trust
from .envelopes import key_id as key_id
from .envelopes import open_envelope as open_envelope
from .envelopes import pae as pae
from .envelopes import read_statement as read_statement
from .envelopes import read_trust as read_trust
from .model_files import check_model as check_model
from .model_files import check_subject as check_subject
from .model_files import subject_of as subject_of
from .model_files import tensor_digest as tensor_digest
from .rules import outcome as outcome
from .rules import recount as recount
