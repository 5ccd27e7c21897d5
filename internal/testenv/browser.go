package testenv

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browserTime is the longest that a test may take with a browser.
const browserTime = 100 * time.Second

// Browser is a tab of a headless Chromium that notes what a person would not see.
type Browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	requests []string // addresses
	faults   []string // console errors, exceptions, dialogs
	answers  chan *network.Response
}

// Browse opens a tab. Without Chromium the test is skipped.
func Browse(t *testing.T) *Browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	// Without the sandbox because tests may run as root, where Chromium has none.
	ctx, cancel := chromedp.NewContext(t.Context(), chromedp.WithAllocatorOptions(chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Headless))
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, browserTime)
	t.Cleanup(cancel)
	b := &Browser{t: t, ctx: ctx, answers: make(chan *network.Response, 1000)}
	b.Do()
	if err := chromedp.Listen(ctx, b.note); err != nil {
		t.Fatal(err)
	}
	for _, enable := range []func() error{
		func() error { _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); return err },
		func() error { _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); return err },
	} {
		if err := enable(); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b *Browser) note(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	case *network.EventResponseReceived:
		select {
		case b.answers <- e.Response:
		default: // nobody waits for so many
		}
	case *runtime.EventExceptionThrown:
		b.faults = append(b.faults, fmt.Sprint("exception: ", e.ExceptionDetails.Text))
	case *runtime.EventConsoleAPICalled:
		b.faults = append(b.faults, fmt.Sprint("console: ", e.Type))
	case *log.EventEntryAdded:
		b.faults = append(b.faults, fmt.Sprintf("log: %s %s", e.Entry.Text, e.Entry.URL))
	case *page.EventJavascriptDialogOpening:
		b.faults = append(b.faults, "dialog: "+e.Message)
	}
}

// Do takes steps, in order.
func (b *Browser) Do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// Visit loads a page.
func (b *Browser) Visit(address string) { b.t.Helper(); b.Do(chromedp.Navigate(address)) }

// Submit takes a step that loads another page, and waits for that.
func (b *Browser) Submit(step chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if _, err := chromedp.RunResponse(b.ctx, step); err != nil {
		b.t.Fatal(err)
	}
}

// Press waits until an element can be seen, and clicks it in the same moment: a mouse, which is told where
// to go, can miss on a page that moves.
func Press(selector string) chromedp.Action[chromedp.Void] {
	return chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`new Promise((done) => {
		const look = () => {
			const found = document.querySelector(%q);
			if (!found?.checkVisibility()) return setTimeout(look, 20);
			setTimeout(() => found.click());
			done();
		};
		look();
	})`, selector), chromedp.EvalAwaitPromise)
}

// Until waits for a condition of the page, looking at every change of it.
func (b *Browser) Until(condition string) {
	b.t.Helper()
	promise := fmt.Sprintf(`new Promise((done) => {
		const look = () => { if (%s) { seen.disconnect(); done(true); } };
		const seen = new MutationObserver(look);
		seen.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
		look();
	})`, condition)
	if _, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](promise, chromedp.EvalAwaitPromise)); err != nil {
		b.t.Fatalf("waiting for %s: %v", condition, err)
	}
}

// Answered waits for the answer to a request for path.
func (b *Browser) Answered(path string) int {
	b.t.Helper()
	for {
		select {
		case r := <-b.answers:
			if strings.HasSuffix(r.URL, path) {
				return int(r.Status)
			}
		case <-b.ctx.Done():
			b.t.Fatalf("%s was not answered", path)
		}
	}
}

// Value is what an expression of JavaScript is on the page.
func Value[T any](b *Browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// WantQuiet says that nothing was complained of, and nobody else was asked for anything.
func (b *Browser) WantQuiet(origin string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.faults) > 0 {
		b.t.Errorf("the browser complains: %q", b.faults)
	}
	if i := slices.IndexFunc(b.requests, func(u string) bool { return !strings.HasPrefix(u, origin+"/") }); i >= 0 {
		b.t.Errorf("the page asks elsewhere: %s", b.requests[i])
	}
	if len(b.requests) < 4 {
		b.t.Errorf("only %q were seen: page, style, script and stream are four", b.requests)
	}
}

// Emulate makes the page see a window of so many pixels and a colour scheme, "light" or "dark".
func (b *Browser) Emulate(width, height int64, scheme string) {
	b.t.Helper()
	b.Do(chromedp.EmulateViewport(width, height))
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		b.t.Fatal(err)
	}
}

// DisableScripts makes the pages that are loaded from now on do without.
func (b *Browser) DisableScripts() {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		b.t.Fatal(err)
	}
}

// Text is what a reader sees of an element.
func (b *Browser) Text(selector string) string {
	b.t.Helper()
	text, err := chromedp.Run(b.ctx, chromedp.Text(chromedp.CSS(selector)))
	if err != nil {
		b.t.Fatalf("%s: %v", selector, err)
	}
	return text
}
