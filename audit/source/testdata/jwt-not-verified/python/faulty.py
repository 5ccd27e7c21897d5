"""Middleware of a service that believes what it is told."""
import base64
import json

import jwt
from jose import jwt as jose_jwt
from jwt import decode as read_token

OPTIONS = {"verify_signature": False, "verify_exp": True}


class AuthMiddleware:
    def __call__(self, request):
        token = request.headers["Authorization"].split()[1]
        claims = jwt.decode(token, options={"verify_signature": False})  # want
        request.user_id = claims["sub"]
        return self.get_response(request)


def old_pyjwt(token):
    return jwt.decode(  # want
        token,
        "secret",
        verify=False,
    )["sub"]


def by_name(token):
    return read_token(token, options=OPTIONS)  # want


def with_dict_call(token):
    return jwt.decode(token, options=dict(verify_signature=False))  # want


def jose(token):
    return jose_jwt.get_unverified_claims(token)  # want


def falls_back(token, key):
    try:
        return jwt.decode(token, key, algorithms=["RS256"])
    except jwt.InvalidSignatureError:
        # "temporarily" let old mobile clients in
        return jwt.decode(token, options={"verify_signature": False})  # want


def by_hand(token):
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))  # want
