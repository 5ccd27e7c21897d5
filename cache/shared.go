package cache

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"reflect"
)

// shared is a Far as one loader uses it: typed, and in a name space of its own.
type shared[K comparable, V any] struct {
	far   Far
	name  string
	codec Codec
	shape []byte
}

// newShared returns nil without a Far.
func newShared[K comparable, V any](cfg Config) (*shared[K, V], error) {
	if cfg.Far == nil {
		return nil, nil
	}
	key, value := reflect.TypeFor[K](), reflect.TypeFor[V]()
	if err := spellable(key); err != nil {
		return nil, fmt.Errorf("key of %s: %w", cfg.Name, err)
	}
	codec := cfg.Codec
	if codec.Encode == nil {
		if err := survives(value, nil); err != nil {
			return nil, fmt.Errorf("Codec: needed for %s: %w", cfg.Name, err)
		}
		codec = Codec{Encode: json.Marshal, Decode: json.Unmarshal}
	}
	return &shared[K, V]{far: cfg.Far, name: cfg.Name, codec: codec, shape: shape(value)}, nil
}

// text is the name of key in the store: that of the loader, and the key spelled out.
func (s *shared[K, V]) text(key K) string { return s.name + ":" + spell(key) }

func (s *shared[K, V]) texts(keys []K) []string {
	texts := make([]string, len(keys))
	for i, key := range keys {
		texts[i] = s.text(key)
	}
	return texts
}

// good reports whether what belongs to the ticket may be given to somebody who asks now.
func (l *Loader[K, V]) good(ctx context.Context, t *Ticket) bool {
	switch {
	case l.far == nil:
		return true
	case t == nil:
		return false
	case l.cfg.Relaxed:
		return l.far.far.Current(*t)
	}
	return l.far.far.Proven(ctx, *t)
}

// look returns the ticket to load with, nil if Far is away, and what Far has. What is stale serves those
// who wait, but no refresh.
func (l *Loader[K, V]) look(ctx context.Context, key K, anew bool) (*Ticket, *entry[V]) {
	if l.far == nil {
		return nil, nil
	}
	hold := l.cfg.Timeout + l.cfg.AbsentTTL + l.cfg.TTL + l.cfg.Stale
	ticket, kept, err := l.far.far.Look(ctx, l.far.text(key), 2*hold)
	if err != nil {
		return nil, nil
	}
	if kept.Life <= 0 {
		return &ticket, nil
	}
	value, ok := l.far.open(kept.Value)
	e := received(l.cfg, value, kept.Life, l.clock.elapsed())
	if !ok || anew && l.clock.elapsed() >= e.fresh {
		return &ticket, nil
	}
	l.received.Add(1)
	return &ticket, e
}

// share gives a loaded value to the other instances. If that fails they load it themselves.
func (l *Loader[K, V]) share(ctx context.Context, o outcome[V]) {
	if o.ticket == nil || o.entry == nil || o.err != nil {
		return
	}
	if data, err := l.far.seal(o.value); err == nil {
		_ = l.far.far.Keep(ctx, *o.ticket, data, o.entry.life)
	}
}

// seal and open put the shape of V before the bytes, so that a version of the program with another V
// reads nothing rather than something else.
func (s *shared[K, V]) seal(value V) ([]byte, error) {
	data, err := s.codec.Encode(value)
	return append(append(make([]byte, 0, len(s.shape)+len(data)), s.shape...), data...), err
}

func (s *shared[K, V]) open(data []byte) (value V, ok bool) {
	n := len(s.shape)
	if len(data) < n || string(data[:n]) != string(s.shape) {
		return value, false
	}
	err := s.codec.Decode(data[n:], &value)
	return value, err == nil
}

// shape is a digest of a type: its fields' names, types and tags, down to the bottom.
func shape(t reflect.Type) []byte {
	h := fnv.New64a()
	describe(t, map[reflect.Type]bool{}, func(s string) { _, _ = h.Write([]byte(s + "\n")) })
	return h.Sum(nil)
}

func describe(t reflect.Type, seen map[reflect.Type]bool, say func(string)) {
	say(t.String())
	if seen[t] {
		return
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Struct:
		for f := range fields(t) {
			say(f.Name + " " + string(f.Tag))
			describe(f.Type, seen, say)
		}
	case reflect.Map:
		describe(t.Key(), seen, say)
		describe(t.Elem(), seen, say)
	case reflect.Pointer, reflect.Slice, reflect.Array:
		say(t.Kind().String())
		describe(t.Elem(), seen, say)
	default:
		say(t.Kind().String())
	}
}
