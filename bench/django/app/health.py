"""GET /health: database, cache and disk; 200, or 503 when one of them fails."""

import shutil

from django.conf import settings
from django.db import connection
from django.http import JsonResponse

from app import cache

LEAST_FREE = 0.1  # of the disk


def health(request):
    """Runs every check, whatever the others say."""
    checks = {name: passes(check) for name, check in CHECKS.items()}
    good = all(checks.values())
    body = {"status": "healthy" if good else "unhealthy", "checks": checks}
    return JsonResponse(body, status=200 if good else 503)


def passes(check):
    """A check that raises has failed."""
    try:
        return bool(check())
    except Exception:  # whatever a driver raises, the answer is the same
        return False


def database():
    """One statement."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone() == (1,)


def disk():
    """Room to write."""
    usage = shutil.disk_usage(settings.DATA_DIR)
    return usage.free / usage.total > LEAST_FREE


CHECKS = {"database": database, "cache": cache.connection.ping, "disk": disk}
