"""A small API of Django as many a team has shipped it: tokens are decoded and not verified, the secret is the one from
the tutorial, a query is glued together, and nothing that a caller sends is checked.

`python3 naive.py` makes the database; `gunicorn naive:application` serves. DATABASE names the file, DEBUG=1 is what it
says.
"""

import json
import os
import time

import django
import jwt
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import JsonResponse
from django.urls import path

settings.configure(
    SECRET_KEY="django-insecure-change-me",
    DEBUG=os.environ.get("DEBUG") == "1",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}},
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
    ],
)


def caller(request):
    """The user who calls, by the token or by the session."""
    header = request.headers.get("Authorization", "")
    if header.startswith("Bearer "):
        try:
            claims = jwt.decode(header[len("Bearer "):], options={"verify_signature": False})
        except jwt.InvalidTokenError:
            return None
        request.session["sub"] = claims.get("sub")
    return request.session.get("sub")


def me(request):
    sub = caller(request)
    if sub is None:
        return JsonResponse({"detail": "please log in"}, status=401)
    return JsonResponse({"sub": sub, "plan": "free"})


def notes(request):
    sub = caller(request)
    if sub is None:
        return JsonResponse({"detail": "please log in"}, status=401)
    with connection.cursor() as cursor:
        if request.method == "POST":
            title = json.loads(request.body)["title"]
            cursor.execute("INSERT INTO notes (owner, title) VALUES (%s, %s)", [sub, title])
            return JsonResponse({"id": cursor.lastrowid, "title": title}, status=201)
        limit = int(request.GET.get("limit", "20"))
        search = request.GET.get("q", "")
        cursor.execute(f"SELECT id, title FROM notes WHERE owner <> '' AND title LIKE '%{search}%' ORDER BY id LIMIT {limit}")
        rows = cursor.fetchall()
    return JsonResponse({"notes": [{"id": id, "title": title} for id, title in rows]})


def note(request, id):
    sub = caller(request)
    if sub is None:
        return JsonResponse({"detail": "please log in"}, status=401)
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, owner, title FROM notes WHERE id = %s", [int(id)])
        row = cursor.fetchone()
    return JsonResponse({"id": row[0], "owner": row[1], "title": row[2]})


def slow(request):
    time.sleep(25)
    return JsonResponse({"report": "done"})


def health(request):
    return JsonResponse({"status": "ok"})


urlpatterns = [
    path("me", me),
    path("notes", notes),
    path("notes/<str:id>", note),
    path("slow", slow),
    path("healthz", health),
]


def fill():
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, title TEXT NOT NULL)")
        for i in range(300):
            cursor.execute("INSERT INTO notes (owner, title) VALUES (%s, %s)", [["alice", "bob"][i % 2], f"note {i}"])


if __name__ == "__main__":
    django.setup()
    fill()
else:
    application = get_wsgi_application()
