// Package valkey watches the Valkey or Redis behind an audited API while requests are sent, and says what they did there:
// commands by name, round trips, what was looked up and found, connections opened. It reads INFO, and writes nothing.
//
// Begin with [Open], then [Observer.Begin], the requests, and [Window.End]. A user with restrictions needs +info
// and +client|setname only; [Observer.Capabilities] says when it lacks the first.
//
// The surprise: the server counts for all its clients and all its databases together, and the commands that a script runs
// as commands. So a window needs a server that is otherwise quiet, and the verdict on commands looks at round trips where the
// server counts those (since Redis 6): a script and a pipeline are one each. Our own INFO is in no figure.
package valkey
