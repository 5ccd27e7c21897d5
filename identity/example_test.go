package identity_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/identity/devissuer"
)

// A handler that knows its caller, here with tokens of the development issuer.
func Example() {
	dir, err := os.MkdirTemp("", "gantry")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	dev, err := devissuer.Load(filepath.Join(dir, "dev-issuer.pem"))
	if err != nil {
		panic(err)
	}
	v, err := identity.New([]identity.Issuer{dev.Issuer()}, identity.Config{})
	if err != nil {
		panic(err)
	}
	hello := v.Middleware(identity.Door{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := identity.FromContext(r.Context())
		fmt.Fprintln(w, "hello,", caller.Subject)
	}))

	token, err := dev.Mint(devissuer.Claims{Subject: "user_1"})
	if err != nil {
		panic(err)
	}
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	request.Header.Set("Authorization", "Bearer "+token)
	answer := httptest.NewRecorder()
	hello.ServeHTTP(answer, request)
	fmt.Print(answer.Code, " ", answer.Body)

	_, err = v.Verify(context.Background(), token+"x")
	if refusal, ok := errors.AsType[*identity.Refusal](err); ok {
		fmt.Println(refusal.Reason)
	}
	// Output:
	// 200 hello, user_1
	// malformed
}
