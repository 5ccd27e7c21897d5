package org.acme.auth;

import com.auth0.jwt.JWT;
import com.auth0.jwt.JWTVerifier;
import com.auth0.jwt.algorithms.Algorithm;
import com.auth0.jwt.interfaces.DecodedJWT;
import com.nimbusds.jwt.SignedJWT;
import io.jsonwebtoken.Jwts;

/** Never JWT.decode(token) alone. */
public final class Tokens {
    private static final String HELP = "JWT.decode(token)";
    private static final String LONG = """
        JWT.decode(token)
        """;
    private static final char QUOTE = '"';

    DecodedJWT verify(String token) {
        // JWT.decode(token)
        DecodedJWT unverified = JWT.decode(token);
        JWTVerifier verifier = JWT.require(Algorithm.RSA256(keys.get(unverified.getKeyId()))).build();
        return verifier.verify(token);
    }

    Object jjwt(String token) {
        return Jwts.parser().verifyWith(key).build().parseSignedClaims(token).getPayload();
    }

    Object accepted(String token) {
        return Jwts.parser().verifyWith(key).build().parse(token).accept(Jws.CLAIMS);
    }

    String nimbus(String token) throws Exception {
        SignedJWT jwt = SignedJWT.parse(token);
        if (!jwt.verify(new RSASSAVerifier(key))) {
            throw new SecurityException("signature");
        }
        return jwt.getJWTClaimsSet().getSubject();
    }
}
