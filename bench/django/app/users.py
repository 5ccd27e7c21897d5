"""GET and PATCH /v1/users/me/: the caller's own row, made on first sight, read through the cache."""

import json

from django.db import transaction
from django.http import HttpResponseNotAllowed, JsonResponse

from app import cache
from app.models import Event, User

LIMITS = {"display_name": 100, "bio": 1000}  # what a caller may change, and its longest value


def me(request):
    """Answers GET from the cache; PATCH writes the row and its event in one transaction."""
    if request.method == "GET":
        key = cache_key(request.claims)
        return JsonResponse(cache.get_or_load(key, lambda: profile(find_or_create(request.claims))))
    if request.method == "PATCH":
        return change(request)
    return HttpResponseNotAllowed(["GET", "PATCH"])


def change(request):
    """Validates every field before it writes any."""
    try:
        patch = json.loads(request.body)
    except ValueError:
        patch = None
    if not isinstance(patch, dict):
        return JsonResponse({"error": "the body must be a JSON object"}, status=400)
    faults = [name for name, value in patch.items() if not valid(name, value)]
    if faults:
        return JsonResponse({"error": "invalid", "fields": faults}, status=422)
    user = write(request.claims, patch)
    cache.invalidate(cache_key(request.claims))
    return JsonResponse(profile(user))


def valid(name, value):
    """Tells whether a caller may give this field this value."""
    return name in LIMITS and isinstance(value, str) and len(value) <= LIMITS[name]


@transaction.atomic
def write(claims, patch):
    """Changes the row under a lock."""
    locked = User.objects.select_for_update()
    try:
        user = locked.get(subject=claims["sub"])
    except User.DoesNotExist:
        user = locked.get(pk=find_or_create(claims).pk)
    for name, value in patch.items():
        setattr(user, name, value)
    user.version += 1
    user.save(update_fields=[*patch, "version", "updated_at"])
    Event.objects.create(user=user, kind="user.updated")
    return user


def find_or_create(claims):
    """Returns the caller's row. Two first requests at once make one."""
    defaults = {"email": claims.get("email", ""), "display_name": claims.get("name", "")}
    with transaction.atomic():
        user, created = User.objects.get_or_create(subject=claims["sub"], defaults=defaults)
        if created:
            Event.objects.create(user=user, kind="user.created")
    return user


def profile(user):
    """The row as its owner sees it."""
    return {
        "id": user.pk,
        "subject": user.subject,
        "email": user.email,
        "display_name": user.display_name,
        "bio": user.bio,
        "version": user.version,
        "created_at": user.created_at.isoformat(),
        "updated_at": user.updated_at.isoformat(),
    }


def cache_key(claims):
    """Where the caller's profile is kept."""
    return f"user:{claims['sub']}"
