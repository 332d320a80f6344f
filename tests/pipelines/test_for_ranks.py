"""Which variables a rank is told: switches of libraries by their names, and no secret."""

from __future__ import annotations

import pytest

from pipelines.for_ranks import for_ranks, without


@pytest.mark.parametrize(
    "name",
    [
        *("CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_DEVICE_MAX_COPY_CONNECTIONS", "NCCL_IB_PKEY"),
        *("NCCL_DEBUG", "HOROVOD_FUSION_THRESHOLD"),
    ],
)
def test_a_switch_reaches_ranks_though_it_is_named_like_a_secret(name: str) -> None:
    assert for_ranks({name: "1"}) == {name: "1"}
    assert name not in without({name: "1"})


@pytest.mark.parametrize(
    "name",
    [
        *("HOROVOD_SECRET_KEY", "NVIDIA_API_KEY", "NCCL_TOKEN", "TF_PASSWORD", "CUDA_PKEY"),
        *("XLA_DB_CONN", "TF_CONNECTION_STRING", "OMP_MAX_CONNECTIONS", "MKL_CREDENTIALS"),
        *("AIRFLOW_CONN_DB", "AIRFLOW__CORE__FERNET_KEY", "SSH_KEY", "PGPASSWORD", "APIKEY"),
    ],
)
def test_what_may_be_a_secret_reaches_none_and_is_hidden(name: str) -> None:
    assert for_ranks({name: "s3cret"}) == {}
    assert without({name: "s3cret"})[name] == ""


def test_an_address_in_a_switch_is_a_secret_where_it_holds_a_password() -> None:
    assert for_ranks({"NCCL_IB_PKEY": "https://ann:s3cret@host"}) == {}
