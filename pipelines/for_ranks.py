"""Which variables reach the ranks of a training: switches of libraries, and no secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipelines.environment import Environment
from pipelines.redaction import without_secrets

PREFIXES = (
    *("HOROVOD_", "GLOO_", "NCCL_", "CUDA_", "NVIDIA_"),
    *("TF_", "XLA_", "OMP_", "ONEDNN_", "MKL_", "KMP_"),
)
"""How the names begin of what a rank is told by whoever starts the night."""
OF_STORE = frozenset(
    {
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"),
        *("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"),
        *("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        *("AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
    }
)
"""By which an object store knows who asks."""
_SECRET = re.compile(r"^AIRFLOW_|SECRET|TOKEN|PASSW|_PWD|KEY|CREDENTIAL|_CONN", re.IGNORECASE)
"""In a name: the value may be a secret."""
_SWITCHES = frozenset(
    {
        *("CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_DEVICE_MAX_COPY_CONNECTIONS"),
        # The number of a partition of the network.
        "NCCL_IB_PKEY",
    }
)
"""Named like secrets, and none: each is a number."""


def for_ranks(variables: Mapping[str, str]) -> dict[str, str]:
    """Those of the variables that a person sets for Horovod, TensorFlow and what they use."""
    switches = {name: value for name, value in variables.items() if name.startswith(PREFIXES)}
    return {name: value for name, value in switches.items() if not _may_be_secret(name, value)}


def store_credentials(variables: Mapping[str, str]) -> dict[str, str]:
    """Those of the variables by which an object store knows who asks.

    Only for a rank whose rows or checkpoint lie in one.
    """
    return {name: value for name, value in variables.items() if name in OF_STORE}


def without(variables: Mapping[str, str]) -> dict[str, str]:
    """An empty text for each variable that may hold a secret: a rank needs none of them.

    Args:
        variables: Those that the rank's process would inherit.
    """
    hidden = [name for name, value in variables.items() if _may_be_secret(name, value)]
    settings = Environment.settings().values()
    ours = [one.variable for one in settings if one.is_secret or one.is_address]
    return dict.fromkeys([*hidden, *ours], "")


def _may_be_secret(name: str, value: str) -> bool:
    is_named_so = _SECRET.search(name) and name not in _SWITCHES
    return bool(is_named_so) or without_secrets(value) != value
