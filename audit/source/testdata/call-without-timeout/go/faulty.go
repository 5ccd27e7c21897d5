package rates

import (
	"context"
	"net/http"
)

var client = &http.Client{Transport: http.DefaultTransport} // want

func rates() (*http.Response, error) {
	if r, err := http.Get("https://rates.example"); err == nil { // want
		return r, nil
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://rates.example", nil)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(req) // want
}
