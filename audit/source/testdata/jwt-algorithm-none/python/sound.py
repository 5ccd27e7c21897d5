import jwt

# algorithms=["none"]
FORBIDDEN = ["none", "None"]


def claims(token, key):
    """jwt.decode(token, key, algorithms=["none"]) is refused."""
    if jwt.get_unverified_header(token)["alg"] in FORBIDDEN:
        raise ValueError("none")
    return jwt.decode(token, key, algorithms=["RS256"])


def render(chart):
    return chart.encode(algorithm="none")
