package org.acme.rates;

import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

@RestController
class Rates {
    // .block()
    @GetMapping("/rates")
    public Mono<Rate> rates() {
        return client.get().uri("/a").retrieve().bodyToMono(Rate.class);
    }

    public Mono<String> legacy() {
        return Mono.fromCallable(() -> blocking.block()).subscribeOn(Schedulers.boundedElastic());
    }

    @GetMapping("/sync")
    public Rate sync() {
        return client.get().uri("/a").retrieve().bodyToMono(Rate.class).block();
    }
}
