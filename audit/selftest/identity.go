package selftest

import (
	"net/http"

	"github.com/gantryhq/gantry/audit"
)

func identityCases() []Case {
	return []Case{
		{Probe: "ID-01", Break: func(a *API) {
			a.Identify = func(r *http.Request) (map[string]any, error) {
				if Bearer(r) == "" || Bearer(r) == "null" { // "no token yet" was meant to be for the log-in page only
					return map[string]any{"sub": "anonymous"}, nil
				}
				return a.verified(r)
			}
		}},
		{Probe: "ID-02", Prepare: orders, Knobs: describedOrders, Break: func(a *API) {
			a.Routes["GET /orders"] = func(w http.ResponseWriter, _ *http.Request) { // written in a hurry, beside the router's group
				Answer(w, 200, map[string]any{"orders": []any{order("o-1", "user_a")}})
			}
		}},
		{Probe: "AZ-01", Prepare: orders, Knobs: twoUsers, Break: func(a *API) {
			a.Routes["GET /orders/{id}"] = a.Private(func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
				anyOrder(w, r.PathValue("id"), func(string) bool { return true }) // logged in is enough
			})
		}},
		{Probe: "AZ-02", Prepare: administration, Knobs: administrator, Break: func(a *API) {
			a.Routes["GET /admin/users"] = a.Private(listUsers) // the button is hidden in the front end
		}},
		{Probe: "AZ-03", Break: func(a *API) {
			a.Identify = func(r *http.Request) (map[string]any, error) {
				if id := r.Header.Get("X-User-Id"); id != "" { // the gateway sets it; nothing keeps clients from it
					return map[string]any{"sub": id}, nil
				}
				return a.verified(r)
			}
		}},
	}
}

var owners = map[string]string{"o-1": "user_a", "o-2": "user_b"}

func order(id, owner string) map[string]any {
	return map[string]any{"id": id, "owner": owner, "total": 1200}
}

// orders adds a collection of which each user sees their own.
func orders(a *API) {
	a.Routes["GET /orders"] = a.Private(func(w http.ResponseWriter, _ *http.Request, claims map[string]any) {
		list := []any{}
		for id, owner := range owners {
			if owner == claims["sub"] {
				list = append(list, order(id, owner))
			}
		}
		Answer(w, 200, map[string]any{"orders": list})
	})
	a.Routes["GET /orders/{id}"] = a.Private(func(w http.ResponseWriter, r *http.Request, claims map[string]any) {
		anyOrder(w, r.PathValue("id"), func(owner string) bool { return owner == claims["sub"] })
	})
}

func anyOrder(w http.ResponseWriter, id string, may func(owner string) bool) {
	owner, found := owners[id]
	if !found || !may(owner) {
		Refuse(w, 404, "there is no such order")
		return
	}
	Answer(w, 200, order(id, owner))
}

func describedOrders(_ string, _ *API, t *audit.Target, _ *audit.Config) {
	t.Operations = []audit.Operation{
		{Method: "GET", Path: "/orders", Secured: true},
		{Method: "GET", Path: "/orders/{id}", Secured: true, Params: []audit.Param{{Name: "id", In: "path", Example: "o-1"}}},
		{Method: "GET", Path: "/health"},
	}
}

func twoUsers(_ string, a *API, t *audit.Target, _ *audit.Config) {
	t.TokenB = a.Token(map[string]any{"sub": "user_b"})
	t.ObjectA, t.ObjectB = "/orders/o-1", "/orders/o-2"
}

// administration adds a path for the role admin alone.
func administration(a *API) {
	a.Routes["GET /admin/users"] = a.Private(func(w http.ResponseWriter, r *http.Request, claims map[string]any) {
		if claims["role"] != "admin" {
			Refuse(w, 403, "this is for administrators")
			return
		}
		listUsers(w, r, claims)
	})
}

func listUsers(w http.ResponseWriter, _ *http.Request, _ map[string]any) {
	Answer(w, 200, map[string]any{"users": []string{"user_a", "user_b"}})
}

func administrator(_ string, a *API, t *audit.Target, _ *audit.Config) {
	t.AdminToken = a.Token(map[string]any{"sub": "admin", "role": "admin"})
	t.AdminPaths = []string{"/admin/users"}
}
