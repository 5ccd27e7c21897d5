package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/maypok86/otter/v2"
)

// MemoryConfig bounds a [Memory]. The zero value is the default.
type MemoryConfig struct {
	// MaxBytes bounds keys and values together with what it costs to keep them; default 16 MiB.
	MaxBytes int
	// MaxEntries bounds the number of entries; default 100,000.
	MaxEntries int
	// Now is the clock of expiry; default time.Now, used monotonically.
	Now func() time.Time
}

// Validate returns every fault of the configuration, joined.
func (c MemoryConfig) Validate() error {
	c = c.withDefaults()
	var faults []error
	if c.MaxBytes < minBytes || c.MaxBytes > maxBytes {
		faults = append(faults, fmt.Errorf("MaxBytes: must be from %d to %d", minBytes, maxBytes))
	}
	if c.MaxEntries < minEntries {
		faults = append(faults, fmt.Errorf("MaxEntries: must be at least %d", minEntries))
	}
	return errors.Join(faults...)
}

func (c MemoryConfig) withDefaults() MemoryConfig {
	if c.MaxBytes == 0 {
		c.MaxBytes = 16 << 20
	}
	if c.MaxEntries == 0 {
		c.MaxEntries = 100_000
	}
	return c
}

const (
	minBytes   = 64 << 10
	maxBytes   = 32 << 30
	minEntries = 16
	// overhead is what an entry costs besides its key and value, measured.
	overhead = 256
	// An entry may take at most this part of the whole.
	largestShare = 16
)

// ErrTooLarge refuses an entry that would push out too many others.
var ErrTooLarge = errors.New("cache: the entry is too large")

// Memory is a bounded store of bytes in this process. When it is full it drops what is used least, so a
// value may be gone at any time. All methods may be called from any goroutine; the contexts are
// not used, they and the errors are there for stores across a network.
type Memory struct {
	entries *otter.Cache[string, item]
	largest int
}

type item struct {
	value []byte
	ttl   time.Duration
}

// NewMemory returns an empty Memory. It needs no closing.
func NewMemory(cfg MemoryConfig) (*Memory, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	// One bound serves both: an entry weighs its bytes, and at least its share of MaxEntries.
	share := (cfg.MaxBytes + cfg.MaxEntries - 1) / cfg.MaxEntries
	entries, err := otter.New(&otter.Options[string, item]{
		MaximumWeight:    uint64(cfg.MaxBytes),
		Weigher:          func(key string, it item) uint32 { return uint32(max(size(key, it.value), share)) },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, item]) time.Duration { return e.Value.ttl }),
		Clock:            newClock(cfg.Now),
		Executor:         inline,
		Logger:           &otter.NoopLogger{},
	})
	if err != nil {
		return nil, err
	}
	return &Memory{entries: entries, largest: cfg.MaxBytes / largestShare}, nil
}

func size(key string, value []byte) int { return len(key) + len(value) + overhead }

// Set stores a copy of value under key for ttl, which must be positive. An entry larger than a 16th of
// MaxBytes is refused with [ErrTooLarge]; what was under key is gone then too.
func (m *Memory) Set(_ context.Context, key string, value []byte, ttl time.Duration) error {
	if ttl <= 0 {
		return fmt.Errorf("cache: ttl %v is not positive", ttl)
	}
	if size(key, value) > m.largest {
		m.entries.Invalidate(key)
		return ErrTooLarge
	}
	m.entries.Set(key, item{slices.Clone(value), ttl})
	return nil
}

// Get returns what is stored under key, which the caller must not change, and whether anything is.
func (m *Memory) Get(_ context.Context, key string) (value []byte, found bool, err error) {
	it, found := m.entries.GetIfPresent(key)
	return it.value, found, nil
}

// Del removes key.
func (m *Memory) Del(_ context.Context, key string) error {
	m.entries.Invalidate(key)
	return nil
}

// Len is about how many entries there are, expired ones that were not dropped yet included.
func (m *Memory) Len() int { return m.entries.EstimatedSize() }
