import asyncio
import jwt
import nest_asyncio
import requests

nest_asyncio.apply()


class ClerkAuthMiddleware:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        claims = jwt.decode(token, options={"verify_signature": False})
        loop = asyncio.get_event_loop()
        request.user_profile = loop.run_until_complete(get_profile(claims["sub"]))
        return self.get_response(request)


async def get_profile(subject):
    fetch = lambda: requests.get(f"https://api.clerk.com/v1/users/{subject}")
    return await asyncio.to_thread(fetch)
