package rates

import (
	"context"
	"net/http"
	"time"
)

// client is not http.Client{}, and nobody calls http.Get(url).
var client = &http.Client{Timeout: 5 * time.Second}

func rates(ctx context.Context) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://rates.example/http.Get()", nil)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(req)
}

type cache struct {
	http interface{ Get(string) string }
}

func (c cache) get(http interface{ Get(string) string }) string { return c.http.Get("x") }
