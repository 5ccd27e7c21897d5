package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/proxy"
	"github.com/gantryhq/gantry/users/sqlite"
)

// Dial is one thing outside the process that the configuration names, and how to try it.
type Dial struct {
	Name, What string
	Dial       func(context.Context) error
}

// Dials lists what `gantry check --live` tries.
func Dials(cfg config.Config) []Dial {
	list := []Dial{
		{"database", cfg.Database.Kind, func(ctx context.Context) error { return dialDatabase(ctx, cfg) }},
		{"cache", cfg.Cache.Kind, func(context.Context) error { return dialCache(cfg) }},
	}
	for _, issuer := range cfg.Issuers {
		list = append(list, Dial{"issuer", issuer.URL, func(ctx context.Context) error { return dialIssuer(ctx, issuer) }})
	}
	if cfg.Upstream != nil {
		list = append(list, Dial{"upstream", cfg.Upstream.String(), func(ctx context.Context) error { return dialUpstream(ctx, cfg) }})
	}
	return list
}

func dialDatabase(ctx context.Context, cfg config.Config) error {
	if cfg.Database.Kind != config.SQLite {
		return errors.New("postgres arrives with the next release")
	}
	store, err := sqlite.Open(ctx, sqlite.Config{Path: cfg.Database.Path})
	if err != nil {
		return err
	}
	return errors.Join(store.Ping(ctx), store.Close())
}

func dialCache(cfg config.Config) error {
	if cfg.Cache.Kind != config.Memory {
		return errors.New("valkey arrives with the next release")
	}
	return nil
}

func dialIssuer(ctx context.Context, issuer identity.Issuer) error {
	v, err := identity.New([]identity.Issuer{issuer}, identity.Config{})
	if err != nil {
		return err
	}
	if err := v.Refresh(ctx); err != nil {
		return err
	}
	if st := v.Status()[0]; st.Keys == 0 {
		return fmt.Errorf("no usable keys (%s)", st.LastError)
	}
	return nil
}

func dialUpstream(ctx context.Context, cfg config.Config) error {
	up, err := proxy.NewUpstream(cfg.Upstream, proxy.Config{AllowLinkLocal: cfg.UpstreamAllowLinkLocal})
	if err != nil {
		return err
	}
	defer up.Close()
	return up.Ping(ctx, cfg.UpstreamHealthPath)
}
