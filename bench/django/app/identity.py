"""A bearer token becomes a caller, or a 401. The signature is verified on each request (RS256)."""

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from django.conf import settings
from django.http import JsonResponse

RULES = {"require": ["exp", "sub"], "verify_aud": False}


class IdentityMiddleware:
    """Sets request.claims. The key is parsed once, when a worker starts."""

    def __init__(self, get_response):
        self.get_response = get_response
        with open(settings.JWT_PUBLIC_KEY_FILE, "rb") as file:
            self.key = load_pem_public_key(file.read())

    def __call__(self, request):
        if request.path_info.startswith("/health"):
            return self.get_response(request)
        scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            return refused("A bearer token is required.")
        try:
            request.claims = jwt.decode(
                token, self.key, algorithms=["RS256"], issuer=settings.JWT_ISSUER, options=RULES
            )
        except jwt.InvalidTokenError:
            return refused("The token is not valid.")
        return self.get_response(request)


def refused(detail):
    """A 401 that says no more than it must."""
    response = JsonResponse({"error": "unauthorized", "detail": detail}, status=401)
    response["WWW-Authenticate"] = "Bearer"
    return response
