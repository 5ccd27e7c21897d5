package guard

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"
)

// setting is a stage that sets headers without asking for the map, and then serves h.
func setting(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(interface{ SetHeaders(names, values []string) }).SetHeaders([]string{"X-One", "X-Two"}, []string{"1", "2"})
		h(w, r)
	})
}

func TestHeadersThatAStageSetAreSentHoweverTheHandlerAnswers(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		for name, handler := range map[string]http.HandlerFunc{
			"nothing":        func(http.ResponseWriter, *http.Request) {},
			"a body":         func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") },
			"a status":       func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) },
			"its own header": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Three", "3") },
			"an early hint":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusEarlyHints) },
		} {
			h, _ := pipeline(t, time.Minute, setting(handler))
			res, _ := get(t, serve(t, h).URL)
			if res.Header.Get("X-One") != "1" || res.Header.Get("X-Two") != "2" || len(res.Header["X-Request-Id"]) != 1 {
				t.Errorf("%s: the client got %v", name, res.Header)
			}
		}
	})
}

func TestHandlerMayChangeWhatAStageSet(t *testing.T) {
	h, _ := pipeline(t, time.Minute, setting(func(w http.ResponseWriter, _ *http.Request) {
		if w.Header().Get("X-One") != "1" || w.Header().Get("X-Request-Id") == "" {
			t.Errorf("the handler sees %v", w.Header())
		}
		w.Header().Del("X-One")
		w.Header().Add("X-Two", "3")
	}))
	res, _ := get(t, serve(t, h).URL)
	if len(res.Header["X-One"]) != 0 || !slices.Equal(res.Header["X-Two"], []string{"2", "3"}) {
		t.Errorf("the client got %v", res.Header)
	}
}

func TestLaterStageWinsOverAnEarlierOne(t *testing.T) {
	h, _ := pipeline(t, time.Minute, setting(func(w http.ResponseWriter, _ *http.Request) {
		w.(*response).SetHeaders([]string{"X-Two"}, []string{"two"})
	}))
	res, _ := get(t, serve(t, h).URL)
	if res.Header.Get("X-One") != "1" || res.Header.Get("X-Two") != "two" {
		t.Errorf("the client got %v", res.Header)
	}
}

func TestHeadersAreSetAtOnceWithoutADeadline(t *testing.T) {
	w := httptest.NewRecorder()
	Pipeline{}.Then(setting(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Header().Get("X-One") != "1" {
		t.Errorf("headers = %v", w.Header())
	}
}

func TestTimeoutCarriesNoHeadersOfTheHandlersSide(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		h, _ := pipeline(t, 20*time.Millisecond, setting(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		res, _ := get(t, serve(t, h).URL)
		if res.StatusCode != http.StatusGatewayTimeout || res.Header.Get("X-One") != "" {
			t.Errorf("answer = %d %v, want a plain 504", res.StatusCode, res.Header)
		}
	})
}

func TestTrailersArePassedOn(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		h, _ := pipeline(t, time.Minute, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			head := w.Header()
			head.Set("Trailer", "X-Sum")
			fmt.Fprint(w, "hello")
			head.Set("X-Sum", "5")
			head.Set(http.TrailerPrefix+"X-Late", "6")
		}))
		res, _ := get(t, serve(t, h).URL)
		if res.Trailer.Get("X-Sum") != "5" || res.Trailer.Get("X-Late") != "6" {
			t.Errorf("trailers = %v, want X-Sum and X-Late", res.Trailer)
		}
	})
}

func TestWhatIsKeptStandsInTheDoorsOwnAnswersToo(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		for status, h := range map[int]http.HandlerFunc{
			504: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			500: func(http.ResponseWriter, *http.Request) { panic("a fault") },
		} {
			guarded, _ := pipeline(t, 50*time.Millisecond, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				x, _ := FromContext(r.Context())
				x.Keep([]string{"X-Version"}, []string{"candidate"})
				h(w, r)
			}))
			if res, _ := get(t, serve(t, guarded).URL); res.StatusCode != status || res.Header.Get("X-Version") != "candidate" {
				t.Errorf("%d with %v, want %d with the version", res.StatusCode, res.Header, status)
			}
		}
	})
}
