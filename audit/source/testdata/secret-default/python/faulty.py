import os

import jwt
from decouple import config
from flask import Flask
from pydantic_settings import BaseSettings
from starlette.middleware.sessions import SessionMiddleware

SECRET_KEY = 'django-insecure-q8zr2vxnt5ykd0wmeogc7lhbfu3sjta9'  # want
JWT_SECRET = os.environ.get("JWT_SECRET", "change-me")  # want
SESSION_SECRET = os.getenv(
    "SESSION_SECRET",
    "dev-session",  # want
)
SIGNING_KEY = config("SIGNING_KEY", default="abc123abc123")  # want
FALLBACK_SECRET = os.environ.get("FALLBACK_SECRET") or "let-me-in"  # want
os.environ.setdefault("SECRET_KEY", "not-so-secret")  # want

app = Flask(__name__)
app.secret_key = b"\x00\x01keyboard cat"  # want
app.config["SECRET_KEY"] = "hard-coded"  # want


class Settings(BaseSettings):
    secret_key: str = "super-secret-key"  # want
    database_url: str = "postgresql://localhost/app"


SIMPLE_JWT = {
    "ALGORITHM": "HS256",
    "SIGNING_KEY": "a-literal-signing-key",  # want
}


def issue(payload):
    return jwt.encode(payload, "sekret", algorithm="HS256")  # want


app.add_middleware(SessionMiddleware, secret_key="sess-key-1")  # want
