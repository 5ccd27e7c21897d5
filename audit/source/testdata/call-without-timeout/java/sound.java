package org.acme.rates;

import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.time.Duration;
import org.springframework.boot.web.client.RestTemplateBuilder;
import org.springframework.web.client.RestTemplate;

class Rates {
    private final RestTemplate rest;

    Rates(RestTemplateBuilder builder) {
        // new RestTemplate()
        this.rest = builder.setReadTimeout(Duration.ofSeconds(5)).build();
    }

    int one() throws IOException {
        HttpURLConnection c = (HttpURLConnection) new URL("https://rates.example").openConnection();
        c.setConnectTimeout(2000);
        c.setReadTimeout(5000);
        return c.getResponseCode();
    }

    HttpRequest two() {
        return HttpRequest.newBuilder(URI.create("https://rates.example/openConnection()"))
            .timeout(Duration.ofSeconds(5))
            .build();
    }
}
