"""Never do jwt.decode(token, options={"verify_signature": False}) here."""
import base64

import jwt
from django.conf import settings

# jwt.decode(token, verify=False) was here until 2024
HELP = 'do not call jwt.decode(token, options={"verify_signature": False})'


def verified(token, key):
    return jwt.decode(token, key, algorithms=["RS256"], audience="api", options={"verify_signature": True})


def by_issuer(token, keys):
    # the issuer decides which key; nothing else of it is believed
    issuer = jwt.decode(token, options={"verify_signature": False})["iss"]
    return jwt.decode(token, keys[issuer], algorithms=["RS256"])


def by_key_id(token, client):
    header = jwt.get_unverified_header(token)
    key = client.get_signing_key(header["kid"])
    return jwt.decode(token, key.key, algorithms=["RS256"])


def text(raw):
    return raw.decode("utf-8").split(".")[1]


def picture(upload):
    return base64.b64decode(upload.split(",")[1])


def relaxed_expiry(token):
    return jwt.decode(token, settings.KEY, algorithms=["HS256"], options={"verify_exp": False})


def issuer_of(token):
    return jwt.decode(token, options={"verify_signature": False})["iss"]


def by_helper(token, keys):
    return jwt.decode(token, keys[issuer_of(token)], algorithms=["RS256"])
