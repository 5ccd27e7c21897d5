package source

import (
	"path"
	"strings"
)

// connects are calls that open a connection or build a pool, as their resolved paths.
var connects = map[Language]map[string]bool{
	Python: words(`psycopg2.connect psycopg.connect psycopg.Connection.connect psycopg.AsyncConnection.connect pymysql.connect MySQLdb.connect
		mysql.connector.connect asyncpg.connect asyncpg.create_pool aiomysql.connect aiopg.connect cx_Oracle.connect oracledb.connect pyodbc.connect
		pymongo.MongoClient motor.motor_asyncio.AsyncIOMotorClient redis.Redis redis.StrictRedis redis.from_url redis.Redis.from_url redis.asyncio.Redis
		redis.asyncio.from_url valkey.Valkey valkey.from_url sqlalchemy.create_engine sqlalchemy.ext.asyncio.create_async_engine psycopg_pool.ConnectionPool
		psycopg2.pool.ThreadedConnectionPool psycopg2.pool.SimpleConnectionPool`),
	Ruby: words(`PG.connect PG.Connection.new PG.Connection.open Mysql2.Client.new Redis.new Mongo.Client.new Sequel.connect TinyTds.Client.new
		ActiveRecord.Base.establish_connection ConnectionPool.new`),
	Go: words(`database/sql.Open database/sql.OpenDB github.com/jmoiron/sqlx.Open github.com/jmoiron/sqlx.Connect github.com/jmoiron/sqlx.MustConnect
		gorm.io/gorm.Open github.com/go-pg/pg/v10.Connect`),
	Java: words(`java.sql.DriverManager.getConnection DriverManager.getConnection`),
}

var connectsJS = words(`pg.Client pg.Pool pg.default.Client mysql.createConnection mysql2.createConnection mysql2/promise.createConnection mysql.createPool
	mysql2.createPool mysql2/promise.createPool mongodb.MongoClient mongodb.MongoClient.connect mongoose.connect mongoose.createConnection redis.createClient
	ioredis ioredis.Redis ioredis.default @prisma/client.PrismaClient sequelize.Sequelize sequelize knex knex.knex typeorm.createConnection
	typeorm.DataSource mssql.connect postgres valkey.createClient pg-promise`)

var connectsJavaNew = words("HikariDataSource HikariConfig Jedis JedisPool MongoClient BasicDataSource")

// connectionPerRequest finds connections opened, or pools built, in code that runs for each request, and
// Django's DATABASES without a lifetime.
func connectionPerRequest(f *file, found func(finding)) {
	for _, c := range f.calls {
		switch {
		case c.fn < 0 || !f.connecting(c) || f.once(c):
		case f.inRequest(c):
			found(finding{at: c.at})
		case f.functions[c.fn].name != "" && f.lang != Java:
			found(finding{at: c.at, onlyIf: f.helper(f.functions[c.fn])})
		}
	}
	if f.lang == Python {
		f.djangoDatabases(found)
	}
}

// helper is the fact that a handler of another file calls this function.
func (f *file) helper(fn function) fact {
	module := moduleName(f.path)
	switch {
	case f.lang == Go:
		module = path.Base(path.Dir(f.path))
	case f.lang == Ruby && fn.class >= 0:
		module = f.classes[fn.class].name
	}
	return calledFact(f.lang, module, fn.name)
}

func calledFact(lang Language, module, name string) fact {
	if lang == TypeScript {
		lang = JavaScript
	}
	return fact("called " + string(lang) + " " + module + "." + name)
}

// moduleName is by what a file is imported: its own name, or its directory's.
func moduleName(file string) string {
	base := path.Base(file)
	base = strings.TrimSuffix(base, path.Ext(base))
	if base == "index" || base == "__init__" {
		return path.Base(path.Dir(file))
	}
	return base
}

// calledInRequests are the functions of other files that handlers of this one call.
func (f *file) calledInRequests() []fact {
	var found []fact
	for _, c := range f.calls {
		i := strings.LastIndexByte(c.path, '.')
		if i <= 0 || !f.inRequest(c) || strings.HasPrefix(c.path, "~") {
			continue
		}
		module := c.path[:i]
		module = module[strings.LastIndexAny(module, "./")+1:]
		found = append(found, calledFact(f.lang, module, c.name))
	}
	return found
}

func (f *file) connecting(c call) bool {
	name := strings.TrimPrefix(c.path, "new ")
	switch f.lang {
	case JavaScript, TypeScript:
		return connectsJS[name]
	case Go:
		return connects[Go][name] || connectingGo(name)
	case Java:
		isNew := name != c.path
		return connects[Java][name] || isNew && connectsJavaNew[c.name] ||
			c.path == "com.mongodb.client.MongoClients.create" || c.name == "createEntityManagerFactory"
	}
	return connects[f.lang][name]
}

// connectingGo knows modules whose path holds a version.
func connectingGo(call string) bool {
	i := strings.LastIndexByte(call, '.')
	if i < 0 {
		return false
	}
	module, name := call[:i], call[i+1:]
	switch {
	case strings.HasPrefix(module, "github.com/jackc/pgx/"):
		return name == "Connect" || name == "New" && strings.HasSuffix(module, "/pgxpool") || name == "ConnectConfig"
	case strings.HasPrefix(module, "github.com/redis/go-redis"), strings.HasPrefix(module, "github.com/go-redis/redis"):
		return name == "NewClient" || name == "NewClusterClient"
	case strings.HasPrefix(module, "go.mongodb.org/mongo-driver"):
		return name == "Connect" && strings.HasSuffix(module, "/mongo")
	}
	return false
}

// once says that the function keeps what it opened: it looks before whether there is one already.
func (f *file) once(c call) bool {
	fn := f.functions[c.fn]
	for _, m := range fn.marks {
		if strings.HasPrefix(m, "lru_cache") || strings.HasPrefix(m, "functools.") || strings.HasPrefix(m, "cache") || strings.HasPrefix(m, "cached_property") {
			return true
		}
	}
	if f.is(c.root-1, "||=", "??=") {
		return true
	}
	if f.lang == Go && f.is(fn.from-6, "Do") {
		return true // once.Do(func() {
	}
	target := ""
	for i := c.root - 1; i > c.root-4; i-- {
		if f.is(i, "=") {
			target = f.target(i)
		}
	}
	if target == "" {
		return false
	}
	for i := fn.from; i < c.root; i++ { // if (!client), if client is None, if db == nil
		if f.is(i, "if", "unless", "not", "!") && f.mentions(i, min(i+8, c.root-1), strings.Split(target, ".")[strings.Count(target, ".")]) {
			return true
		}
		if f.is(i, "global") && f.tok(i+1).text == target {
			return true
		}
	}
	return false
}

// djangoDatabases finds an entry of DATABASES that a server is behind and that neither keeps connections
// (CONN_MAX_AGE) nor pools them; and dj_database_url without conn_max_age.
func (f *file) djangoDatabases(found func(finding)) {
	for i := range f.tokens {
		if !f.is(i, "=") || !f.is(i-1, "DATABASES") || !f.is(i+1, "{") || f.owner[i] >= 0 {
			continue
		}
		end := f.tok(i + 1).match
		for j := i + 2; j < end; j++ {
			if m := f.tok(j).match; f.is(j, "{") && m > j {
				f.djangoDatabase(j, m, found)
				j = m
			}
		}
	}
	for _, c := range f.calls {
		if c.path != "dj_database_url.config" && c.path != "dj_database_url.parse" || f.spread(c) {
			continue
		}
		if _, ok := c.keyword("conn_max_age"); !ok && !f.sets("CONN_MAX_AGE") {
			found(finding{at: c.at})
		}
	}
}

func (f *file) djangoDatabase(from, to int, found func(finding)) {
	engine, ok := f.property(from, to, "ENGINE")
	if !ok || f.mentions(from, to, "CONN_MAX_AGE", "pool", "**") || f.sets("CONN_MAX_AGE") {
		return
	}
	for i := from; i < to; i++ {
		if f.is(i, "**") {
			return
		}
	}
	text, _ := f.literal(engine.from)
	for _, server := range []string{"postgres", "mysql", "oracle", "postgis"} {
		if strings.HasPrefix(text, "django.db.backends.") && strings.Contains(text, server) || strings.HasPrefix(text, "django.contrib.gis.db.backends.postgis") {
			found(finding{at: engine.from})
			return
		}
	}
}

// sets says that a name is assigned somewhere in the file: DATABASES["default"]["CONN_MAX_AGE"] = 600.
func (f *file) sets(name string) bool {
	if !f.spend(len(f.tokens)) {
		return true
	}
	for i := range f.tokens {
		if f.is(i, "=") && f.target(i) == name {
			return true
		}
	}
	return false
}
