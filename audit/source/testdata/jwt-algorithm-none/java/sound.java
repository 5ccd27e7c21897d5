package org.acme.auth;

import com.auth0.jwt.JWT;
import com.auth0.jwt.algorithms.Algorithm;
import java.util.stream.Stream;

class Tokens {
    // Algorithm.none()
    Object verify(String token) {
        return JWT.require(Algorithm.RSA256(key)).build().verify(token);
    }

    boolean empty(Stream<String> roles) {
        return roles.noneMatch(r -> r.equals("Algorithm.none()"));
    }
}
