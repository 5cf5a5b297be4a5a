"""Settings as they are read from the variables that a test gives, or refused."""

import pytest

from domain.errors.configuration import ConfigurationError
from infrastructure.settings import Settings, load_settings

__all__ = ["KEYS", "SECRET", "load", "refused"]


SECRET = "correct-horse-battery"
KEYS = f"ann:admin:{SECRET}, ben:observer:another-secret"


def load(**variables: str) -> Settings:
    return load_settings({f"CONCLAVE_{name}": value for name, value in variables.items()}, None)


def refused(**variables: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load(**variables)
    return caught.value
