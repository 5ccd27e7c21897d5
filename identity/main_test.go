package identity

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// readVector returns a file of the shared vectors, or skips the test where they are absent.
func readVector(t testing.TB, path ...string) []byte {
	t.Helper()
	name := filepath.Join(append([]string{"..", "..", "shared", "vectors"}, path...)...)
	text, err := os.ReadFile(name)
	if err != nil {
		t.Skipf("the shared vectors are not here: %v", err)
	}
	return text
}
