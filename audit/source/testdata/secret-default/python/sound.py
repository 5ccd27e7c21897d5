"""SECRET_KEY = 'django-insecure-in-a-docstring'"""
import os

import jwt
from decouple import config

# SECRET_KEY = 'django-insecure-old'
SECRET_KEY = os.environ["SECRET_KEY"]
JWT_SECRET = os.environ.get("JWT_SECRET")
EMPTY_SECRET = os.environ.get("EMPTY_SECRET", "")
SIGNING_KEY = config("SIGNING_KEY")
SECRET_KEY_FILE = "/run/secrets/key"
SECRET_NAME = "prod/app/secret"
SECRET_KEY_PATH = os.getenv("SECRET_KEY_PATH", "/run/secrets/key")
JWT_SECRET_ENV = "JWT_SECRET"
PUBLIC_KEY = "-----BEGIN PUBLIC KEY-----"
CACHE_KEY = "users:all"
session_key = "session"
LABELS = {"secret": "Secret", "secret_key": "Secret key", "token": "Token"}
secret_key = f"{os.environ['A']}{os.environ['B']}"
MESSAGE = "SECRET_KEY = 'literal' is refused"
DEBUG = os.environ.get("DEBUG") == "1"

if DEBUG:
    SECRET_KEY = "only-on-a-developers-machine"

if SECRET_KEY == "change-me":
    raise SystemExit("SECRET_KEY: set it")


def issue(payload, key):
    return jwt.encode(payload, key, algorithm="HS256")


def value(form):
    return form.get("secret_name", "none given")
