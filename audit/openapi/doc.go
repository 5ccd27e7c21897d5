// Package openapi reads an API's own description, so that an audit knows what to ask.
//
// Begin with [Read]: it takes OpenAPI 3.0 or 3.1, or Swagger 2.0, as JSON or YAML, and gives every operation with
// the line that describes it. [Fill] tells a target what the description knows, and [Section] writes that down for
// gantry.yaml.
//
// The surprise: nothing is fetched. A $ref is followed inside the document only, and one that points elsewhere is an
// error that says how to bundle the files; a description with a hole in it would make an audit look complete.
package openapi
