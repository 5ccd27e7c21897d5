"""One row for each verified subject, and what was done to it."""

from django.db import models


class User(models.Model):
    """What the API knows of a caller."""

    subject = models.CharField(max_length=255, unique=True)
    email = models.CharField(max_length=320, default="", blank=True)
    display_name = models.CharField(max_length=100, default="", blank=True)
    bio = models.CharField(max_length=1000, default="", blank=True)
    version = models.BigIntegerField(default=1)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)


class Event(models.Model):
    """One entry of the audit log."""

    user = models.ForeignKey(User, on_delete=models.CASCADE)
    kind = models.CharField(max_length=40)
    at = models.DateTimeField(auto_now_add=True)
