"""Everything comes from the environment; what is missing stops the start."""

import os
from urllib.parse import unquote, urlsplit

SECRET_KEY = os.environ["SECRET_KEY"]
DEBUG = False
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost,127.0.0.1").split(",")
ROOT_URLCONF = "app.urls"
INSTALLED_APPS = ["app"]
USE_TZ = True
USE_I18N = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
APPEND_SLASH = False

# A production Django has a dozen of these. The two that any API keeps are here, and the document's two.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "app.identity.IdentityMiddleware",
    "app.limits.RateLimitMiddleware",
]

_database = urlsplit(os.environ["DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": _database.hostname,
        "PORT": _database.port or 5432,
        "NAME": _database.path.lstrip("/"),
        "USER": _database.username,
        "PASSWORD": unquote(_database.password or ""),
        "CONN_MAX_AGE": 600,
    }
}

VALKEY_URL = os.environ["VALKEY_URL"]
CACHE_TTL = int(os.environ.get("CACHE_TTL", "300"))  # seconds

JWT_PUBLIC_KEY_FILE = os.environ["JWT_PUBLIC_KEY_FILE"]
JWT_ISSUER = os.environ["JWT_ISSUER"]

RATE_LIMIT_PER_USER = int(os.environ.get("RATE_LIMIT_PER_USER", "100"))  # per minute
RATE_LIMIT_GLOBAL = int(os.environ.get("RATE_LIMIT_GLOBAL", "10000"))  # per minute

DATA_DIR = os.environ.get("DATA_DIR", "/")
