package org.acme.rates;

import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import org.springframework.web.client.RestTemplate;

class Rates {
    private final RestTemplate rest = new RestTemplate(); // want

    int one() throws IOException {
        HttpURLConnection c = (HttpURLConnection) new URL("https://rates.example").openConnection(); // want
        return c.getResponseCode();
    }

    String two(HttpClient client) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create("https://rates.example")).GET().build(); // want
        return client.send(request, HttpResponse.BodyHandlers.ofString()).body();
    }

    byte[] three() throws IOException {
        return new URL("https://rates.example").openStream().readAllBytes(); // want
    }
}
