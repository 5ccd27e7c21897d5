package source

import (
	"encoding/json"
	"path"
)

// place is where JavaScript runs. A token that a page in a browser decodes is no hole.
type place uint8

const (
	unknownPlace place = iota
	inService
	inBrowser
)

var (
	serviceModules = words(`express fastify koa hono @hapi/hapi @nestjs/core restify pg mysql mysql2 mongodb mongoose ioredis redis @prisma/client
		sequelize typeorm knex apollo-server @apollo/server graphql-yoga amqplib kafkajs bullmq`)
	browserModules = words("react react-dom vue svelte @angular/core preact solid-js jquery react-scripts @sveltejs/kit")
)

// place says what the nearest package.json at or above a directory tells; of one with both kinds of
// modules, nothing.
func (s *scan) place(dir string) place {
	if p, known := s.places[dir]; known {
		return p
	}
	p, found := s.packagePlace(dir)
	if !found && dir != "." {
		p = s.place(path.Dir(dir))
	}
	s.places[dir] = p
	return p
}

func (s *scan) packagePlace(dir string) (p place, found bool) {
	text, err := s.text(path.Join(dir, "package.json"))
	if err != nil {
		return unknownPlace, false
	}
	var file struct {
		Dependencies map[string]any `json:"dependencies"`
	}
	if json.Unmarshal([]byte(text), &file) != nil {
		return unknownPlace, true
	}
	var service, browser bool
	for name := range file.Dependencies {
		service = service || serviceModules[name]
		browser = browser || browserModules[name]
	}
	switch {
	case service && !browser:
		return inService, true
	case browser && !service:
		return inBrowser, true
	}
	return unknownPlace, true
}
