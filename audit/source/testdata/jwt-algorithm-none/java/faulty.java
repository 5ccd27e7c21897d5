package org.acme.auth;

import com.auth0.jwt.JWT;
import com.auth0.jwt.algorithms.Algorithm;
import io.jsonwebtoken.Jwts;

class Tokens {
    Object verify(String token) {
        return JWT.require(Algorithm.none()).build().verify(token); // want
    }

    Object jjwt(String token) {
        return Jwts.parser().unsecured().build().parseSignedClaims(token); // want
    }
}
