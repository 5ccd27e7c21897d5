import os

SECRET_KEY = os.environ["SECRET_KEY"]
if len(SECRET_KEY) < 50 or SECRET_KEY.startswith("django-insecure-"):
    raise SystemExit("SECRET_KEY: 50 or more random characters are needed")
DEBUG = os.environ.get("DEBUG", "False") == "True"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["DB_NAME"],
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
    }
}
