package org.acme.rates;

import reactor.core.publisher.Mono;

@RestController
class Rates {
    @GetMapping("/rates")
    public Mono<Rate> rates() throws InterruptedException {
        Rate first = client.get().uri("/a").retrieve().bodyToMono(Rate.class).block(); // want
        Thread.sleep(100); // want
        return Mono.just(first);
    }
}
