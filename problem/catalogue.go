package problem

// The catalogue: every refusal Gantry can give. docs/problems.md is generated from it.
var (
	BadRequest = Details{Code: "bad-request", Status: 400, Title: "The request is malformed"}
	BadPath    = Details{
		Code: "bad-path", Status: 400, Title: "The path is not in canonical form",
		Detail: "Send a path without dot segments, empty segments, backslashes, semicolons, or encoded slashes and control characters.",
	}
	BadHost = Details{Code: "bad-host", Status: 400, Title: "The Host header is missing or invalid"}

	Unauthenticated  = Details{Code: "unauthenticated", Status: 401, Title: "Authentication is required", Detail: "Send a bearer token in the Authorization header."}
	InvalidToken     = Details{Code: "invalid-token", Status: 401, Title: "The token is not valid", Detail: "Get a new token and try again."}
	Forbidden        = Details{Code: "forbidden", Status: 403, Title: "You may not do this"}
	AccountSuspended = Details{Code: "account-suspended", Status: 403, Title: "The account is suspended", Detail: "Ask those who run this service to reinstate it."}
	NotFound         = Details{Code: "not-found", Status: 404, Title: "There is nothing here"}
	MethodNotAllowed = Details{Code: "method-not-allowed", Status: 405, Title: "The method is not allowed here"}
	RequestTimeout   = Details{Code: "request-timeout", Status: 408, Title: "The request took too long to arrive"}
	Conflict         = Details{Code: "conflict", Status: 409, Title: "The request conflicts with the current state"}
	HandleTaken      = Details{Code: "handle-taken", Status: 409, Title: "The handle belongs to another user", Detail: "Choose another one.", Faults: []Fault{{Pointer: "/handle", Detail: "belongs to another user"}}}
	AccountDeleted   = Details{Code: "account-deleted", Status: 410, Title: "The account was deleted", Detail: "It cannot be brought back."}
	Precondition     = Details{Code: "precondition-failed", Status: 412, Title: "The resource has changed", Detail: "Read it again and send its current ETag in If-Match."}
	TooLarge         = Details{Code: "content-too-large", Status: 413, Title: "The request body is too large"}
	TooLongURL       = Details{Code: "uri-too-long", Status: 414, Title: "The URL is too long", Detail: "Send what is long in the body."}
	UnsupportedMedia = Details{Code: "unsupported-media-type", Status: 415, Title: "The content type is not supported"}
	Misdirected      = Details{Code: "misdirected-request", Status: 421, Title: "This host is not served here"}
	Unprocessable    = Details{Code: "invalid-content", Status: 422, Title: "The request content is not valid", Detail: "Each fault is listed in errors."}
	KeyReused        = Details{Code: "idempotency-key-reused", Status: 422, Title: "The idempotency key was used for another request", Detail: "Send a new Idempotency-Key."}
	NeedPrecondition = Details{Code: "precondition-required", Status: 428, Title: "The request must be conditional", Detail: "Read the resource and send its ETag in If-Match."}
	RateLimited      = Details{
		Code: "quota-exceeded", Status: 429, Title: "Too many requests",
		Type: "https://iana.org/assignments/http-problem-types#quota-exceeded",
	}

	Internal       = Details{Code: "internal", Status: 500, Title: "Internal error"}
	NotImplemented = Details{Code: "not-implemented", Status: 501, Title: "The method is not implemented"}
	BadGateway     = Details{Code: "bad-gateway", Status: 502, Title: "The upstream did not answer properly"}
	KeysMissing    = Details{Code: "auth-keys-unavailable", Status: 503, Title: "Tokens cannot be verified right now"}
	Overloaded     = Details{Code: "overloaded", Status: 503, Title: "The server is busy"}
	Draining       = Details{Code: "draining", Status: 503, Title: "The server is shutting down"}
	StoreDown      = Details{Code: "store-unavailable", Status: 503, Title: "The data store cannot be reached"}
	BreakerOpen    = Details{Code: "upstream-unavailable", Status: 503, Title: "The upstream is failing and is being given time"}
	Reduced        = Details{
		Code: "temporary-reduced-capacity", Status: 503, Title: "Capacity is reduced for the moment",
		Type: "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
	}
	Timeout = Details{Code: "timeout", Status: 504, Title: "The request took too long to process"}
)

// All returns the catalogue in the order of status.
func All() []Details {
	return []Details{
		BadRequest, BadPath, BadHost, Unauthenticated, InvalidToken, Forbidden, AccountSuspended, NotFound,
		MethodNotAllowed, RequestTimeout, Conflict, HandleTaken, AccountDeleted, Precondition, TooLarge, TooLongURL, UnsupportedMedia,
		Misdirected, Unprocessable, KeyReused, NeedPrecondition, RateLimited, Internal, NotImplemented,
		BadGateway, KeysMissing, Overloaded, Draining, StoreDown, BreakerOpen, Reduced, Timeout,
	}
}
