"""The small API of naive.py as it ought to be: tokens are verified with the issuer's public key, for this audience, by
this issuer and until they expire; what callers send is checked; every error is JSON; a user sees their own notes only.

`python3 sound.py` makes the database; `gunicorn sound:application` serves. DATABASE and PUBLIC_KEY name files.
"""

import json
import os
import re
import secrets
import time

import django
import jwt
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import JsonResponse
from django.urls import path
from jwt.algorithms import RSAAlgorithm

ISSUER = "https://issuer.example"
AUDIENCE = "notes"
PAGE = 100  # rows at most
BODY = 64 * 1024  # bytes at most

with open(os.environ["PUBLIC_KEY"], "rb") as file:
    PUBLIC_KEY = file.read()

settings.configure(
    SECRET_KEY=secrets.token_urlsafe(50),
    DEBUG=False,
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    DATA_UPLOAD_MAX_MEMORY_SIZE=BODY,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}},
    MIDDLEWARE=[
        __name__ + ".answers",
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
    ],
)


class Problem(Exception):
    def __init__(self, status, title, **headers):
        self.status, self.title, self.headers = status, title, headers


def problem(status, title, headers=()):
    answer = JsonResponse({"title": title, "status": status}, status=status, content_type="application/problem+json")
    for name, value in dict(headers).items():
        answer[name.replace("_", "-")] = value
    return answer


def answers(get_response):
    """Gives every answer a request id, and keeps it out of caches."""

    def middleware(request):
        sent = request.headers.get("X-Request-Id", "")
        answer = get_response(request)
        answer["X-Request-Id"] = sent if re.fullmatch(r"[A-Za-z0-9-]{8,64}", sent) else secrets.token_hex(16)
        answer["Cache-Control"] = "no-store"
        return answer

    return middleware


def caller(request):
    """The user who calls; a Problem when the token is not one for us."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    try:
        if scheme.lower() != "bearer":
            raise jwt.InvalidTokenError("no bearer token")
        header = jwt.get_unverified_header(token)
        if "crit" in header or header.get("typ") != "at+jwt":
            raise jwt.InvalidTokenError("not an access token")
        claims = jwt.decode(
            token, PUBLIC_KEY, algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER, leeway=10,
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
    except jwt.InvalidTokenError:
        raise Problem(401, "a valid access token is needed", WWW_Authenticate="Bearer") from None
    return claims["sub"]


def view(*methods):
    """A view for these methods that turns a Problem into its answer."""

    def decorate(f):
        def wrapped(request, **arguments):
            try:
                if request.method not in methods:
                    raise Problem(405, "method not allowed", Allow=", ".join(methods))
                return f(request, **arguments)
            except Problem as p:
                return problem(p.status, p.title, p.headers)

        return wrapped

    return decorate


def number(text, low, high):
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise Problem(400, f"a number from {low} to {high} is needed")
    return int(text)


def read_note(request):
    """The title in a JSON body, as the description says it must be."""
    if request.content_type != "application/json":
        raise Problem(415, "the body must be application/json")
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        raise Problem(400, "the body is not JSON") from None
    title = body.get("title") if isinstance(body, dict) else None
    if not isinstance(title, str) or not 1 <= len(title) <= 200 or not title.isprintable():
        raise Problem(422, "title must be a text of 1 to 200 characters")
    if set(body) != {"title"}:
        raise Problem(422, "title is the only member")
    return title


@view("GET", "HEAD")
def me(request):
    return JsonResponse({"sub": caller(request), "plan": "free"})


@view("GET", "HEAD", "POST")
def notes(request):
    sub = caller(request)
    with connection.cursor() as cursor:
        if request.method == "POST":
            title = read_note(request)
            cursor.execute("INSERT INTO notes (owner, title) VALUES (%s, %s)", [sub, title])
            return JsonResponse({"id": cursor.lastrowid, "title": title}, status=201)
        limit = number(request.GET.get("limit", "20"), 1, PAGE)
        search = request.GET.get("q", "")
        if len(search) > 200 or "\0" in search:
            raise Problem(400, "q must be a text of 200 characters at most")
        cursor.execute(
            "SELECT id, title FROM notes WHERE owner = %s AND instr(title, %s) > 0 ORDER BY id LIMIT %s", [sub, search, limit]
        )
        rows = cursor.fetchall()
    return JsonResponse({"notes": [{"id": id, "title": title} for id, title in rows]})


@view("GET", "HEAD")
def note(request, id):
    sub = caller(request)
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, owner, title FROM notes WHERE id = %s AND owner = %s", [number(id, 1, 999999999), sub])
        row = cursor.fetchone()
    if row is None:
        raise Problem(404, "no such note")
    return JsonResponse({"id": row[0], "owner": row[1], "title": row[2]})


@view("GET", "HEAD")
def slow(request):
    time.sleep(25)
    return JsonResponse({"report": "done"})


@view("GET", "HEAD")
def health(request):
    return JsonResponse({"status": "ok"})


@view("GET", "HEAD")
def keys(request):
    key = json.loads(RSAAlgorithm.to_jwk(RSAAlgorithm(RSAAlgorithm.SHA256).prepare_key(PUBLIC_KEY)))
    key.pop("key_ops", None)
    return JsonResponse({"keys": [{**key, "kid": "issuer-1", "use": "sig", "alg": "RS256"}]})


urlpatterns = [
    path("me", me),
    path("notes", notes),
    path("notes/<str:id>", note),
    path("slow", slow),
    path("healthz", health),
    path("readyz", health),
    path(".well-known/jwks.json", keys),
]


def handler400(request, exception):
    return problem(400, "bad request")


def handler404(request, exception):
    return problem(404, "not found")


def handler500(request):
    return problem(500, "internal error")


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
