import jwt
import requests
from django.conf import settings

keys = jwt.PyJWKClient(settings.CLERK_JWKS_URL, timeout=5)


class ClerkAuthMiddleware:
    """Verifies; jwt.decode(token, options={"verify_signature": False}) is gone."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        key = keys.get_signing_key_from_jwt(token)
        claims = jwt.decode(token, key.key, algorithms=["RS256"], issuer=settings.CLERK_ISSUER)
        request.user_profile = get_profile(claims["sub"])
        return self.get_response(request)


def get_profile(subject):
    return requests.get(f"https://api.clerk.com/v1/users/{subject}", timeout=5).json()
