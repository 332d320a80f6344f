"""Who a token of Airflow's is of: a person as the settings name them now.

Airflow's simple auth manager takes the role from the token, which lives for a day: whoever is named
no more, or has another role since, went on with what they had.
"""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.configuration import conf


class People(SimpleAuthManager):
    """Airflow's simple auth manager, whose tokens tell a name alone."""

    def deserialize_user(self, token: dict[str, Any]) -> SimpleAuthManagerUser:
        """The person of that name, with the role of now.

        Raises:
            ValueError: nobody has it any more; who asks then has to sign in.
        """
        name = token["sub"]
        for person in self.get_users():
            if person.username == name:
                return person
        if conf.getboolean("core", "simple_auth_manager_all_admins"):
            # Whoever asks is an admin whom no setting names.
            return super().deserialize_user(token)
        raise ValueError("who this token was made for may sign in no more")
