// Package source reads the code of a service and finds, with file and line, the holes that requests
// from outside only hint at: tokens decoded and not verified, secrets with a default in the code, a
// database connection made for each request, blocking calls in async code, calls to others without a
// timeout. It reads Python, JavaScript, TypeScript, Go, Ruby and Java. Begin with [Scan].
//
// The surprise: it is not a search for text. Go is parsed by go/parser; the other languages are cut into
// tokens by their own rules for comments, strings, regular expressions and here-documents, and from
// balanced brackets, indentation and "end" the package knows calls with their arguments and the function
// around them. So a pattern in a comment or a string is no hole, and a decode beside a verify of the
// same function is none either. What it cannot know (an argument that is a variable from elsewhere) it
// does not report: it is to be right about what it says, not to say all.
package source
