"""An S3 bucket in this process, with conditional writes as S3 has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from mlflow.store.artifact import s3_artifact_repo
from moto import mock_aws
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID


@pytest.fixture(scope="module")
def account() -> Iterator[Any]:
    """A client of an account; clients are slow to make, so that a module has one and MLflow another."""
    with pytest.MonkeyPatch.context() as environment, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "testing")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.delenv("MLFLOW_S3_ENDPOINT_URL", raising=False)
        s3_artifact_repo._cached_get_s3_client.cache_clear()
        yield boto3.client("s3")
        s3_artifact_repo._cached_get_s3_client.cache_clear()


@pytest.fixture
def bucket(account: Any) -> Any:
    """The client, and one empty bucket: `models`."""
    kept().reset()
    account.create_bucket(Bucket="models")
    return account


def kept() -> Any:
    """What the store holds, for what would take long through its door."""
    return get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]
