"""One trained project a module."""

from __future__ import annotations

import pytest
from small_project import Project, copy_of_this_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One dataset revision, one version, @champion."""
    made = copy_of_this_project(tmp_path_factory.mktemp("e2e") / "project")
    made.train(people=50, revision="data-v1")
    made.champion("1")
    return made
