package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"reflect"
	"strconv"
	"strings"
)

// Two keys have one spelling only if they are equal: texts are written with their length, and structs and arrays
// field by field, unexported ones too.

// longest is the length from which a spelling is replaced by its digest.
const longest = 200

// spell writes key, whose type is spellable, as text.
func spell(key any) string {
	var b strings.Builder
	write(&b, reflect.ValueOf(key))
	if b.Len() <= longest {
		return b.String()
	}
	sum := sha256.Sum256([]byte(b.String()))
	return "sha256-" + hex.EncodeToString(sum[:])
}

func write(b *strings.Builder, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		fmt.Fprintf(b, "%d:%s", v.Len(), v.String())
	case reflect.Struct:
		for i := range v.NumField() {
			write(b, v.Field(i))
			b.WriteByte(';')
		}
	case reflect.Array:
		for i := range v.Len() {
			write(b, v.Index(i))
			b.WriteByte(';')
		}
	case reflect.Bool:
		b.WriteString(strconv.FormatBool(v.Bool()))
	default:
		fmt.Fprint(b, number(v))
	}
}

func number(v reflect.Value) any {
	if v.CanInt() {
		return v.Int()
	}
	return v.Uint()
}

// spellable refuses keys that cannot be spelled, or that are equal without being spelled the same.
func spellable(t reflect.Type) error {
	switch t.Kind() {
	case reflect.String, reflect.Bool,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return nil
	case reflect.Array:
		return spellable(t.Elem())
	case reflect.Struct:
		for f := range fields(t) {
			if err := spellable(f.Type); err != nil {
				return fmt.Errorf("%s: %w", f.Name, err)
			}
		}
		return nil
	}
	return fmt.Errorf("%v cannot be part of a shared key", t)
}

// survives refuses types that JSON would not bring back whole.
func survives(t reflect.Type, seen []reflect.Type) error {
	for _, s := range seen {
		if s == t {
			return nil
		}
	}
	seen = append(seen, t)
	if t.Implements(marshaler) || reflect.PointerTo(t).Implements(marshaler) {
		return nil
	}
	switch t.Kind() {
	case reflect.Struct:
		return fieldsSurvive(t, seen)
	case reflect.Map, reflect.Pointer, reflect.Slice, reflect.Array:
		return survives(t.Elem(), seen)
	case reflect.Interface, reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Complex64, reflect.Complex128:
		return fmt.Errorf("JSON does not bring %v back", t)
	}
	return nil
}

var marshaler = reflect.TypeFor[json.Marshaler]()

func fieldsSurvive(t reflect.Type, seen []reflect.Type) error {
	for f := range fields(t) {
		if !f.IsExported() || f.Tag.Get("json") == "-" {
			return fmt.Errorf("JSON leaves %s out", f.Name)
		}
		if err := survives(f.Type, seen); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return nil
}

func fields(t reflect.Type) iter.Seq[reflect.StructField] {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}
