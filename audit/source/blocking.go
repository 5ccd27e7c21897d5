package source

import (
	"slices"
	"strings"
)

var blockingPython = words(`time.sleep urllib.request.urlopen psycopg2.connect psycopg.connect pymysql.connect MySQLdb.connect mysql.connector.connect
	subprocess.run subprocess.call subprocess.check_call subprocess.check_output os.system os.popen sqlite3.connect pyodbc.connect input
	asyncio.run redis.Redis redis.from_url pymongo.MongoClient`)

var requestVerbs = words("get post put patch delete head options request send")

// blockingInAsync finds calls that hold up an event loop.
func blockingInAsync(f *file, found func(finding)) {
	for _, c := range f.calls {
		var blocks bool
		switch f.lang {
		case Python:
			blocks = f.blocksPython(c)
		case Java:
			blocks = f.blocksJava(c)
		default:
			blocks = f.blocksJS(c)
		}
		if blocks {
			found(finding{at: c.at})
		}
	}
}

func (f *file) blocksPython(c call) bool {
	switch {
	case c.path == "nest_asyncio.apply":
		return true // it makes one loop run inside another: the document's deadlock
	case c.fn < 0:
		return false
	case c.path == "asyncio.run", c.name == "run_until_complete":
		return f.functions[c.fn].async || f.inRequest(c)
	case !f.functions[c.fn].async:
		return false
	case blockingPython[c.path]:
		return true
	}
	i := strings.LastIndexByte(c.path, '.')
	if i < 0 || !requestVerbs[c.name] || f.awaited(c) {
		return false
	}
	switch c.path[:i] {
	case "requests", "requests.Session()", "requests.session()", "httpx", "httpx.Client()", "urllib3.PoolManager()":
		return true
	}
	return false
}

func (f *file) awaited(c call) bool { return f.is(c.root-1, "await") }

// syncModules have asynchronous forms of everything that ends in Sync.
var syncModules = words("fs fs-extra graceful-fs child_process crypto zlib bcrypt bcryptjs")

// glances are over at once; what reads, writes, hashes or runs takes its time.
var glances = words("existsSync statSync lstatSync accessSync fstatSync")

func (f *file) blocksJS(c call) bool {
	module, _, _ := strings.Cut(c.path, ".")
	switch {
	case !f.inRequest(c):
		return false
	case c.path == "Atomics.wait", c.path == "deasync", strings.HasPrefix(c.path, "sync-request"):
		return true
	}
	return strings.HasSuffix(c.name, "Sync") && !glances[c.name] && syncModules[module]
}

func (f *file) blocksJava(c call) bool {
	if c.fn < 0 {
		return false
	}
	reactive := false
	for fn := c.fn; fn >= 0; fn = f.functions[fn].outer {
		name, _, _ := strings.Cut(f.functions[fn].returns, "<")
		reactive = reactive || slices.Contains([]string{"Mono", "Flux", "Uni", "Multi"}, name)
	}
	switch {
	case !reactive, f.beside(c, func(o call) bool { return strings.HasSuffix(o.path, "Schedulers.boundedElastic") }):
		return false
	case strings.HasSuffix(c.path, "Thread.sleep"):
		return true
	}
	return slices.Contains([]string{"block", "blockFirst", "blockLast"}, c.name) && len(c.args) == 0 && strings.Contains(c.path, ".")
}
