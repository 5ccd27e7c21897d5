package org.acme.auth;

import io.jsonwebtoken.Jwts;
import io.jsonwebtoken.SignatureAlgorithm;
import java.util.Optional;

@Component
public class JwtConfig {
    @Value("${jwt.secret:changeme}") // want
    private String configured;

    @ConfigProperty(name = "session.secret", defaultValue = "quarkus-default") // want
    String session;

    private static final String SECRET_KEY = "mySecretKey123"; // want

    String fromEnvironment() {
        return System.getenv().getOrDefault("JWT_SECRET", "env-default"); // want
    }

    String property() {
        return System.getProperty("jwt.secret", "property-default"); // want
    }

    String optional() {
        return Optional.ofNullable(System.getenv("COOKIE_SECRET")).orElse("optional-default"); // want
    }

    String ternary(String jwtSecret) {
        return jwtSecret != null ? jwtSecret : "ternary-default"; // want
    }

    String sign(String subject) {
        return Jwts.builder().setSubject(subject).signWith(SignatureAlgorithm.HS256, "written-out").compact(); // want
    }
}
