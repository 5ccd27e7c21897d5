package org.acme.auth;

import java.util.Map;

/** private static final String SECRET_KEY = "doc"; */
@Component
public class JwtConfig {
    // @Value("${jwt.secret:changeme}")
    @Value("${jwt.secret}")
    private String secret;

    @Value("${server.port:8080}")
    private int port;

    @Value("${jwt.secret.file:/run/secrets/jwt}")
    private String file;

    private static final String SECRET_KEY = System.getenv("SECRET_KEY");
    private static final String JWT_SECRET_NAME = "jwt-secret";
    private static final String SECRET_HEADER = "X-Secret";
    private static final String HELP = "SECRET_KEY = \"x\"";

    String kind(Map<String, String> labels) {
        return labels.getOrDefault("title", "Secret");
    }

    boolean known(String secret) {
        return "hunter2hunter2".equals(secret) ? true : secret.isEmpty();
    }
}
