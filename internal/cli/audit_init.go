package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/openapi"
	"github.com/gantryhq/gantry/audit/report"
)

// usualDescriptions are where APIs keep their description.
var usualDescriptions = []string{
	"/openapi.json", "/v1/openapi.json", "/api/openapi.json", "/openapi.yaml", "/api-docs", "/v3/api-docs", "/swagger.json",
	"/swagger/v1/swagger.json", "/api/schema/",
}

// auditInit proposes the audit section of gantry.yaml from the API's own description.
func auditInit(ctx context.Context, p Process) int {
	fs := flags(p, "audit init URL", "Reads the API's OpenAPI description and proposes the audit section of gantry.yaml: paths, and recipes to\nwrite with. Nothing is written to the API. Read it before you use --active.")
	described := fs.String("openapi", "", "the description, a file or a URL; looked for at the usual places when not given")
	write := fs.String("write", "", "write it to this file, which must not exist, instead of printing it")
	args, code, ok := parseMixed(fs, p)
	if !ok {
		return code
	}
	if len(args) != 1 {
		fmt.Fprintln(p.Stderr, "gantry audit init: name one URL, such as: gantry audit init http://127.0.0.1:8000")
		return Usage
	}
	t, err := audit.ParseTarget(args[0])
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry audit init:", err)
		return Usage
	}
	ops, err := describe(ctx, t, described)
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry audit init:", err)
		return Incomplete
	}
	openapi.Fill(t, ops)
	text := openapi.Section(t)
	if *write == "" {
		fmt.Fprint(p.Stdout, text)
		return Good
	}
	if err := create(*write, text); err != nil {
		fmt.Fprintln(p.Stderr, "gantry audit init:", err)
		return Failed
	}
	fmt.Fprintf(p.Stdout, "wrote %s; read it, then: gantry audit %s --config %s\n", *write, args[0], *write)
	return Good
}

// describe reads the description that was named, or finds one; then it leaves its place in named.
func describe(ctx context.Context, t *audit.Target, named *string) ([]audit.Operation, error) {
	if *named != "" {
		return operations(ctx, t, *named)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, path := range usualDescriptions {
		ops, err := operations(ctx, t, t.URL.String()+path)
		if err == nil && len(ops) > 0 {
			*named = t.URL.String() + path
			return ops, nil
		}
	}
	return nil, fmt.Errorf("%s has no description at the usual places; name it with --openapi", t.URL)
}

func operations(ctx context.Context, t *audit.Target, source string) ([]audit.Operation, error) {
	text, err := fetchOrRead(ctx, source, maxDescription)
	if err != nil {
		return nil, errors.New(report.Plain(err.Error())) // it may quote what the API sent
	}
	d, err := openapi.Read(source, text)
	if err != nil {
		return nil, errors.New(report.Plain(err.Error()))
	}
	return d.For(t.URL), nil
}

// create writes a file that must not exist.
func create(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
