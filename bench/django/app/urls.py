"""The routes, with and without the trailing slash."""

from django.urls import re_path

from app import health, users

urlpatterns = [
    re_path(r"^v1/users/me/?$", users.me),
    re_path(r"^health/?$", health.health),
]
