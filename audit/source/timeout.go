package source

import "strings"

// withoutTimeout finds calls to other services that wait as long as the other side likes.
func withoutTimeout(f *file, found func(finding)) {
	for _, c := range f.calls {
		switch f.lang {
		case Python:
			f.timeoutPython(c, found)
		case JavaScript, TypeScript:
			f.timeoutJS(c, found)
		case Go:
			f.timeoutGo(c, found)
		case Ruby:
			f.timeoutRuby(c, found)
		case Java:
			f.timeoutJava(c, found)
		}
	}
	if f.lang == Go {
		f.clientsGo(found)
	}
}

func (f *file) timeoutPython(c call, found func(finding)) {
	timeout, given := c.keyword("timeout")
	given = given && !f.only(timeout, "None") || f.spread(c)
	i := strings.LastIndexByte(c.path, '.')
	if i < 0 || given {
		return
	}
	switch owner := c.path[:i]; {
	case c.path == "urllib.request.urlopen":
		if _, third := c.positional(2); !third {
			found(finding{at: c.at, unless: socketTimeout})
		}
	case owner == "requests" && requestVerbs[c.name]:
		found(finding{at: c.at})
	case (owner == "requests.Session()" || owner == "requests.session()") && requestVerbs[c.name]:
		if !f.mounted() {
			found(finding{at: c.at})
		}
	case strings.HasPrefix(c.path, "httpx.") && f.only(timeout, "None"), strings.HasPrefix(c.path, "aiohttp.Client") && f.timeoutNone(c):
		found(finding{at: c.at}) // both have a timeout unless it is switched off
	}
}

func (f *file) timeoutNone(c call) bool {
	a, ok := c.keyword("total")
	return c.name == "ClientTimeout" && ok && f.only(a, "None") && len(c.args) == 1
}

// mounted says that sessions get an adapter, which is where a default timeout is put.
func (f *file) mounted() bool {
	if !f.spend(len(f.calls)) {
		return true
	}
	for _, c := range f.calls {
		if c.name == "mount" && strings.Contains(strings.ToLower(f.source(c.from, c.to)), "timeout") {
			return true
		}
	}
	return false
}

var axiosVerbs = words("get delete head options post put patch")

func (f *file) timeoutJS(c call, found func(finding)) {
	switch {
	case c.path == "fetch" && f.imports["fetch"] == "" || c.path == "node-fetch" || c.path == "node-fetch.default" || c.path == "undici.fetch":
		if f.server() && f.visible(c, 1) && !f.mentions(c.from, c.to, "signal", "timeout", "dispatcher") {
			found(finding{at: c.at})
		}
	case strings.HasPrefix(c.path, "axios") && f.imported("axios"):
		f.timeoutAxios(c, found)
	case c.path == "got" || strings.HasPrefix(c.path, "got.") && axiosVerbs[c.name]:
		if f.imported("got") && f.visible(c, 1) && !f.mentions(c.from, c.to, "timeout", "signal") {
			found(finding{at: c.at})
		}
	case c.path == "http.get" || c.path == "http.request" || c.path == "https.get" || c.path == "https.request":
		limited := func(o call) bool { return o.name == "setTimeout" && strings.Contains(o.path, ".") }
		if f.imported("http", "https") && f.visible(c, 0) && !f.mentions(c.from, c.to, "timeout", "signal") && !f.beside(c, limited) && !f.chained(c, "setTimeout") {
			found(finding{at: c.at})
		}
	}
}

func (f *file) timeoutAxios(c call, found func(finding)) {
	options := 1
	switch {
	case c.path == "axios.create" || c.path == "axios.request":
		options = 0
	case c.path == "axios":
		options = 0
		if a, ok := c.positional(0); ok && !f.is(a.from, "{") {
			options = 1
		}
	case strings.TrimPrefix(c.path, "axios.") != c.name || !axiosVerbs[c.name]:
		return // an instance has the timeout it was created with
	case c.name == "post", c.name == "put", c.name == "patch":
		options = 2
	}
	if f.server() && f.visible(c, options) && !f.mentions(c.from, c.to, "timeout", "signal") {
		found(finding{at: c.at, unless: axiosTimeout})
	}
}

// visible says that the n-th argument is absent or an object written out, so that what it lacks is known.
func (f *file) visible(c call, n int) bool {
	a, ok := c.positional(n)
	if f.spread(c) {
		return false
	}
	if !ok {
		return true
	}
	if f.is(a.from, "{") {
		for i := a.from; i < a.to; i++ {
			if f.is(i, "...") {
				return false
			}
		}
		return true
	}
	text := f.tok(a.from)
	return n == 0 && (text.kind == str || f.is(a.from, "url", "uri", "endpoint")) || f.is(a.from+1, "=>") || f.is(a.from, "(")
}

// chained says that the result is used as c(...).NAME(...).
func (f *file) chained(c call, name string) bool {
	return f.is(c.to+1, ".") && f.is(c.to+2, name)
}

func (f *file) timeoutGo(c call, found func(finding)) {
	switch c.path {
	case "net/http.Get", "net/http.Post", "net/http.PostForm", "net/http.Head":
		found(finding{at: c.at, unless: clientTimeout})
	case "net/http.DefaultClient.Do", "net/http.DefaultClient.Get", "net/http.DefaultClient.Post":
		if !f.deadlineGo(c.fn) {
			found(finding{at: c.at, unless: clientTimeout})
		}
	}
}

// deadlineGo says that requests are made with a context that may end.
func (f *file) deadlineGo(fn int) bool {
	if !f.spend(len(f.calls)) {
		return true
	}
	for _, c := range f.calls {
		if fn >= 0 && !f.related(fn, c.fn) {
			continue
		}
		switch c.path {
		case "context.WithTimeout", "context.WithDeadline", "context.WithTimeoutCause", "context.WithDeadlineCause":
			return true
		case "net/http.NewRequestWithContext":
			if a, ok := c.positional(0); ok && !(f.is(a.from, "context") && f.is(a.from+2, "Background", "TODO")) {
				return true
			}
		}
	}
	return false
}

// clientsGo finds http.Client{} without Timeout in files that give their requests no deadline either.
func (f *file) clientsGo(found func(finding)) {
	for i := range f.tokens {
		if !f.is(i, "Client") || !f.is(i-1, ".") || f.imports[f.tok(i-2).text] != "net/http" || !f.is(i+1, "{") {
			continue
		}
		if f.is(i-3, "]") && f.is(i-4, "[") { // a list of clients
			continue
		}
		if !f.mentions(i+1, f.tok(i+1).match, "Timeout") && !f.assigns("Timeout") && !f.deadlineGo(-1) {
			found(finding{at: i})
		}
	}
}

// assigns says that a field of this name is assigned in the file: client.Timeout = x.
func (f *file) assigns(field string) bool {
	if !f.spend(len(f.tokens)) {
		return true
	}
	for i := range f.tokens {
		if f.is(i, "=") && f.is(i-1, field) && f.is(i-2, ".") {
			return true
		}
	}
	return false
}

func (f *file) timeoutRuby(c call, found func(finding)) {
	var sets []string // what gives this call a timeout; nothing can when it is empty
	client := false   // what is made can be given one later
	switch c.path {
	case "Net.HTTP.get", "Net.HTTP.get_response", "Net.HTTP.post", "Net.HTTP.post_form": // theirs is 60 s for each step
	case "RestClient.get", "RestClient.post", "RestClient.put", "RestClient.delete", "Faraday.get", "Faraday.post":
	case "Net.HTTP.new", "Net.HTTP.start":
		sets, client = []string{"read_timeout"}, true
	case "URI.open", "OpenURI.open_uri":
		sets = []string{"read_timeout"}
	case "HTTParty.get", "HTTParty.post", "HTTParty.put", "HTTParty.patch", "HTTParty.delete", "RestClient.Request.execute":
		sets = []string{"timeout", "read_timeout"}
	case "Faraday.new":
		sets, client = []string{"timeout", "read_timeout", "request"}, true
	default:
		return
	}
	from, to := 0, len(f.tokens)
	if c.fn >= 0 {
		from, to = f.functions[c.fn].from, f.functions[c.fn].to
	}
	switch {
	case f.spread(c), f.mentions(c.from, c.to, sets...), client && f.mentions(from, to, sets...):
	case f.mentions(from, to, "Timeout"): // Timeout.timeout(5) do
	default:
		found(finding{at: c.at})
	}
}

func (f *file) timeoutJava(c call, found func(finding)) {
	given := func(names ...string) bool {
		return f.beside(c, func(o call) bool {
			for _, n := range names {
				if o.name == n {
					return true
				}
			}
			return false
		})
	}
	switch {
	case c.name == "openConnection" && len(c.args) <= 1 && f.imported("java.net"):
		if !given("setReadTimeout") {
			found(finding{at: c.at})
		}
	case c.name == "openStream" && strings.Contains(c.path, "URL") && f.imported("java.net"):
		found(finding{at: c.at})
	case c.path == "java.net.http.HttpRequest.newBuilder", c.path == "HttpRequest.newBuilder" && f.imported("java.net.http"):
		if !given("timeout", "orTimeout") {
			found(finding{at: c.at})
		}
	case c.path == "new org.springframework.web.client.RestTemplate":
		if len(c.args) == 0 && !given("setRequestFactory", "setReadTimeout", "setConnectTimeout") {
			found(finding{at: c.at})
		}
	case strings.HasSuffix(c.path, ".HttpClients.createDefault"), strings.HasSuffix(c.path, ".HttpClientBuilder.create") && !given("setDefaultRequestConfig", "setConnectionManager"):
		if !given("setConfig", "setResponseTimeout", "setSocketTimeout") {
			found(finding{at: c.at})
		}
	case c.path == "org.springframework.web.reactive.function.client.WebClient.create":
		if !given("timeout", "responseTimeout") {
			found(finding{at: c.at})
		}
	}
}
