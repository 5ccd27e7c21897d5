package org.acme.auth;

import com.auth0.jwt.JWT;
import com.auth0.jwt.interfaces.DecodedJWT;
import com.nimbusds.jwt.SignedJWT;
import io.jsonwebtoken.Claims;
import io.jsonwebtoken.Jwts;
import javax.servlet.FilterChain;

public class TokenFilter extends OncePerRequestFilter {
    private final String key;

    @Override
    protected void doFilterInternal(HttpServletRequest request, HttpServletResponse response, FilterChain chain) throws IOException, ServletException {
        DecodedJWT jwt = JWT.decode(request.getHeader("Authorization").substring(7)); // want
        request.setAttribute("user", jwt.getSubject());
        chain.doFilter(request, response);
    }

    Claims claims(String token) {
        return Jwts.parserBuilder().setSigningKey(key).build().parseClaimsJwt(token).getBody(); // want
    }

    Object any(String token) {
        return Jwts.parser()
            .setSigningKey(key)
            .parse(token) // want
            .getBody();
    }

    String nimbus(String token) throws ParseException {
        return SignedJWT.parse(token).getJWTClaimsSet().getSubject(); // want
    }

    String fallback(String token) {
        try {
            return verifier.verify(token).getSubject();
        } catch (JWTVerificationException e) {
            return JWT.decode(token).getSubject(); // want
        }
    }
}
