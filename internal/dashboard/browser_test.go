package dashboard

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/gantryhq/gantry/internal/testenv"
)

func TestInABrowserThePageMovesAndAnAlertIsSilenced(t *testing.T) {
	a, b := open(t, Config{}), testenv.Browse(t)
	b.Visit(a.URL)
	b.Until(`document.getElementById("live").className === "on"`)
	drawn := testenv.Value[string](b, `document.querySelector("#traffic path.line").getAttribute("d")`)
	b.Do(testenv.Press("#config summary"))

	v := healthy()
	for i := range v.Short.Points {
		v.Short.Points[i].Requests = uint64(i * i)
	}
	v.Alerts[0].State, v.Alerts[0].Reading = "firing", "3.1 %"
	a.office.set(v)
	b.Until(`document.querySelector("#verdict h2").textContent === "High Error Rate: 3.1 %"`)
	b.Until(fmt.Sprintf(`document.querySelector("#traffic path.line").getAttribute("d") !== %q`, drawn))
	if title := testenv.Value[string](b, "document.title"); title != "High Error Rate: 3.1 % · Gantry" {
		t.Errorf("the title is %q", title)
	}
	if !testenv.Value[bool](b, `document.querySelector("#config details").open`) {
		t.Error("what the reader opened was closed by an update")
	}
	b.WantQuiet(a.URL)

	button := `[aria-label="Silence High Error Rate"]`
	b.Do(chromedp.Focus(chromedp.CSS(button)))
	v.InFlight = 7
	before := v.Alerts[0]
	before.Name = "An Alert That Stands Before It"
	v.Alerts = slices.Insert(v.Alerts, 0, before)
	a.office.set(v)
	b.Until(`document.querySelectorAll("#alerts [data-key]").length === 2`)
	b.Until(`document.querySelector("#traffic").textContent.includes("7")`)
	if got := testenv.Value[string](b, `document.activeElement.getAttribute("aria-label")`); got != "Silence High Error Rate" {
		t.Errorf("the focus went to %q", got)
	}
	b.Submit(testenv.Press(button))
	if got := a.office.done; !slices.Equal(got, []string{"silence High Error Rate 1h0m0s"}) {
		t.Errorf("the button did %q", got)
	}
	v.Alerts[1].SilencedUntil = time.Now().Add(time.Hour)
	a.office.set(v)
	b.Until(`document.querySelector("#alerts").textContent.includes("silenced until")`)
	b.WantQuiet(a.URL)
}

func TestInABrowserOneLogsInAndOut(t *testing.T) {
	a, b := open(t, closed()), testenv.Browse(t)
	b.Visit(a.URL)
	for _, try := range []string{"wrong", adminToken} {
		b.Do(chromedp.SendKeys(chromedp.ID("token"), try))
		b.Submit(chromedp.Submit(chromedp.ID("token")))
	}
	b.Until(`document.getElementById("live").className === "on"`)
	if cookies := testenv.Value[string](b, "document.cookie"); cookies != "" {
		t.Errorf("scripts can read the session: %q", cookies)
	}
	b.Submit(chromedp.Submit(chromedp.CSS("header form")))
	b.Visit(a.URL + "/")
	if at := testenv.Value[string](b, "location.pathname"); at != "/login" {
		t.Errorf("after the logout the page is %s", at)
	}
}

func TestInABrowserAnotherSitesFormChangesNothing(t *testing.T) {
	a, b := open(t, closed()), testenv.Browse(t)
	b.Visit(a.URL)
	b.Do(chromedp.SendKeys(chromedp.ID("token"), adminToken))
	b.Submit(chromedp.Submit(chromedp.ID("token")))
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `<!doctype html><form method="post" action="%s/alerts/silence"><input name="alert" value="High Error Rate"><input name="for" value="1h"></form><a href="%[1]s/">in</a>`, a.URL)
	}))
	defer evil.Close()
	b.Visit(strings.Replace(evil.URL, "127.0.0.1", "localhost", 1))
	b.Do(chromedp.Submit(chromedp.CSS("form")))
	if got := b.Answered("/alerts/silence"); got != http.StatusForbidden || len(a.office.done) > 0 {
		t.Errorf("the forged form is answered %d, and did %q", got, a.office.done)
	}
	// An honest link from there still leads to the page: the session is there on the second step.
	b.Visit(strings.Replace(evil.URL, "127.0.0.1", "localhost", 1))
	b.Do(testenv.Press("a"), chromedp.WaitVisible(chromedp.ID("verdict")))
}

func TestInABrowserHostileTextStaysText(t *testing.T) {
	a, b := open(t, Config{}), testenv.Browse(t)
	var v View
	fill(reflect.ValueOf(&v).Elem(), hostile)
	a.office.set(v)
	a.later(time.Minute)
	b.Visit(a.URL)
	b.Until(`document.getElementById("live").className === "on"`)
	v.InFlight = 77 // and once more by the stream
	a.office.set(v)
	b.Until(`document.querySelector("#traffic").textContent.includes("77")`)
	for _, id := range []string{"alerts", "refusals", "routes", "config", "health", "rollout"} {
		if !testenv.Value[bool](b, fmt.Sprintf(`document.getElementById(%q).textContent.includes("<script>alert(1)</script>")`, id)) {
			t.Errorf("%s does not show the text", id)
		}
	}
	if n := testenv.Value[int](b, `document.scripts.length + document.images.length`); n != 1 {
		t.Errorf("there are %d scripts and images, want 1", n)
	}
	b.WantQuiet(a.URL)
}

func TestInABrowserThePageFitsAPhoneInBothSchemes(t *testing.T) {
	a, b := open(t, Config{}), testenv.Browse(t)
	var v View
	fill(reflect.ValueOf(&v).Elem(), strings.Repeat("averylongword", 20))
	a.office.set(v)
	a.later(time.Minute)
	paper := map[string]string{}
	for _, scheme := range []string{"light", "dark"} {
		b.Emulate(400, 800, scheme)
		b.Visit(a.URL)
		if over := testenv.Value[int](b, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
			t.Errorf("%s: the page is %d pixels too wide", scheme, over)
		}
		paper[scheme] = testenv.Value[string](b, `getComputedStyle(document.body).backgroundColor`)
	}
	if paper["light"] == paper["dark"] {
		t.Errorf("the paper is %s by day and by night", paper["light"])
	}
}

func TestInABrowserWithoutScriptsTheEssentialsWork(t *testing.T) {
	a, b := open(t, Config{}).firing(), testenv.Browse(t)
	b.DisableScripts()
	b.Visit(a.URL)
	if headline := b.Text("#verdict h2"); headline != "High Error Rate" {
		t.Errorf("the verdict is %q", headline)
	}
	b.Submit(chromedp.Click(chromedp.CSS(`[aria-label="Acknowledge High Error Rate"]`)))
	if got := a.office.done; !slices.Equal(got, []string{"acknowledge High Error Rate dashboard"}) {
		t.Errorf("the button did %q", got)
	}
}

func TestInABrowserTheKeyboardReachesEveryControl(t *testing.T) {
	a, b := open(t, Config{}).firing(), testenv.Browse(t)
	b.Visit(a.URL)
	want := testenv.Value[int](b, `[...document.querySelectorAll("a[href],button,select,summary,input:not([type=hidden])")].filter((e) => e.checkVisibility()).length`)
	seen := map[string]bool{}
	for range want {
		b.Do(chromedp.KeyEvent("\t"))
		seen[testenv.Value[string](b, `document.activeElement.outerHTML`)] = true
		if width := testenv.Value[string](b, `getComputedStyle(document.activeElement).outlineWidth`); width == "0px" {
			t.Errorf("the focus on %s cannot be seen", testenv.Value[string](b, `document.activeElement.outerHTML`))
		}
	}
	if len(seen) != want {
		t.Errorf("%d controls are reached, want %d: %v", len(seen), want, seen)
	}
}
