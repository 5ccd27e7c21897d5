package rates

import (
	"net/http"
	"time"
)

func slow() *http.Client {
	c := &http.Client{}
	c.Timeout = time.Minute
	return c
}
