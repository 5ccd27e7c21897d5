package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/proxy"
	"github.com/gantryhq/gantry/telemetry"
	"github.com/gantryhq/gantry/users/postgres"
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
		{"cache", cfg.Cache.Kind, func(ctx context.Context) error { return dialCache(ctx, cfg) }},
	}
	for _, issuer := range cfg.Issuers {
		list = append(list, Dial{"issuer", issuer.URL, func(ctx context.Context) error { return dialIssuer(ctx, issuer) }})
	}
	if cfg.Upstream != nil {
		list = append(list, Dial{"upstream", cfg.Upstream.String(), func(ctx context.Context) error { return dialUpstream(ctx, cfg) }})
	}
	if cfg.Traces.Endpoint != nil {
		list = append(list, Dial{"traces", cfg.Traces.Endpoint.String(), func(ctx context.Context) error { return telemetry.Dial(ctx, exportOf(cfg.Traces)) }})
	}
	if !cfg.SentryDSN.IsZero() {
		list = append(list, Dial{"sentry", "", func(ctx context.Context) error { return telemetry.DialSentry(ctx, cfg.SentryDSN.Reveal()) }})
	}
	for _, r := range cfg.Alerting.Receivers {
		if r.Kind != config.LogOnly {
			list = append(list, Dial{r.Name, r.Kind, func(ctx context.Context) error { return dialReceiver(ctx, r) }})
		}
	}
	return list
}

// dialReceiver sends nothing: gantry alerts test does.
func dialReceiver(ctx context.Context, r config.Receiver) error {
	n, err := r.Notifier(nil)
	if err != nil {
		return err
	}
	if n, ok := n.(interface{ Reach(context.Context) error }); ok {
		return n.Reach(ctx)
	}
	return nil
}

func dialDatabase(ctx context.Context, cfg config.Config) error {
	store, err := OpenUsers(ctx, cfg)
	if err != nil {
		return err
	}
	err = store.Ping(ctx)
	if pool, ok := store.(*postgres.Store); ok && err == nil {
		err = pool.Budget(ctx, cfg.Instances)
	}
	return errors.Join(err, store.Close())
}

func dialCache(ctx context.Context, cfg config.Config) error {
	if cfg.Cache.Kind == config.Memory {
		return nil
	}
	return dialValkey(ctx, cfg.Cache)
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
