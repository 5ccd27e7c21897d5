// Command limiter measures Gantry's shared rate limiter beside go-redis/redis_rate's on one server,
// in one run, in alternating order:
//
//	redis-server --port 6390 --save "" &
//	go run . -addr 127.0.0.1:6390
//
// Each decision is one of 1,000 users at 100 a second. "exact" is Gantry's sliding log of the user; "exact
// + global" is what a request costs, the user's log and everybody's in one decision; "gcra" is
// redis_rate, which keeps one number a user and admits up to twice the limit in a window. CPU is the
// process's own and the server's, for one decision. Shown are medians of the rounds, and the rate of the
// best round: other work on the machine lowers a rate, and raises none. This module is apart so that Gantry does not
// depend on what it is measured against.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gantryhq/gantry/ratelimit"
	"github.com/gantryhq/gantry/ratelimit/valkey"
	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	driver "github.com/valkey-io/valkey-go"
)

const users = 1000

var names = func() (list [users]string) {
	for i := range list {
		list[i] = "user_" + strconv.Itoa(i)
	}
	return list
}()

// contender makes one decision for a user.
type contender struct {
	name   string
	decide func(ctx context.Context, user string) error
}

// result is one round of a contender.
type result struct {
	perSecond, clientCPU, serverCPU float64 // CPU in microseconds for a decision
	p50, p99                        time.Duration
}

func main() {
	addr := flag.String("addr", "127.0.0.1:6379", "the server; it is emptied")
	rounds := flag.Int("rounds", 5, "rounds of each")
	length := flag.Duration("length", time.Second, "of a round")
	flag.Parse()
	if err := run(*addr, *rounds, *length); err != nil {
		log.Fatal(err)
	}
}

func run(addr string, rounds int, length time.Duration) error {
	client, err := driver.NewClient(valkey.Tuned(driver.ClientOption{InitAddress: []string{addr}}))
	if err != nil {
		return err
	}
	defer client.Close()
	plain := redis.NewClient(&redis.Options{Addr: addr})
	defer plain.Close()
	list, err := contenders(client, plain)
	if err != nil {
		return err
	}
	fmt.Println("| limiter | goroutines | decisions/s, best round | median | client CPU µs | server CPU µs | p50 µs | p99 µs |")
	fmt.Println("|---|--:|--:|--:|--:|--:|--:|--:|")
	for _, goroutines := range []int{64, 256, 512} {
		results := make([][]result, len(list))
		for round := range rounds {
			for i := range list {
				if round%2 == 1 {
					i = len(list) - 1 - i // the other way round
				}
				r, err := measure(plain, list[i], goroutines, length)
				if err != nil {
					return fmt.Errorf("%s: %w", list[i].name, err)
				}
				results[i] = append(results[i], r)
			}
		}
		for i, c := range list {
			by := func(f func(result) float64) float64 { return median(results[i], f) }
			best := slices.MaxFunc(results[i], func(a, b result) int { return cmp.Compare(a.perSecond, b.perSecond) })
			fmt.Printf("| %s | %d | %.0f | %.0f | %.1f | %.1f | %.0f | %.0f |\n", c.name, goroutines, best.perSecond,
				by(func(r result) float64 { return r.perSecond }), by(func(r result) float64 { return r.clientCPU }), by(func(r result) float64 { return r.serverCPU }),
				by(func(r result) float64 { return float64(r.p50.Microseconds()) }), by(func(r result) float64 { return float64(r.p99.Microseconds()) }))
		}
	}
	return nil
}

func contenders(client driver.Client, plain *redis.Client) ([]contender, error) {
	store, err := valkey.New(client, valkey.Config{Timeout: 5 * time.Second}) // nothing may be cut short here
	if err != nil {
		return nil, err
	}
	gcra := redis_rate.NewLimiter(plain)
	user := ratelimit.Rate{Limit: 100, Window: time.Second}
	global := ratelimit.Charge{Policy: "global", Rate: ratelimit.Rate{Limit: ratelimit.MaxLimit, Window: time.Second}, Hidden: true}
	return []contender{
		{"gantry, exact", func(ctx context.Context, name string) error {
			_, err := store.Take(ctx, []ratelimit.Charge{{Policy: "user", Key: name, Rate: user}})
			return err
		}},
		{"gantry, exact + global", func(ctx context.Context, name string) error {
			_, err := store.Take(ctx, []ratelimit.Charge{{Policy: "user", Key: name, Rate: user}, global})
			return err
		}},
		{"redis_rate, gcra", func(ctx context.Context, name string) error {
			_, err := gcra.Allow(ctx, name, redis_rate.PerSecond(100))
			return err
		}},
	}, nil
}

// measure runs one contender on an empty server.
func measure(server *redis.Client, c contender, goroutines int, length time.Duration) (result, error) {
	ctx := context.Background()
	if err := server.FlushAll(ctx).Err(); err != nil {
		return result{}, err
	}
	client, remote, err := cpu(ctx, server)
	if err != nil {
		return result{}, err
	}
	begin := time.Now()
	took, err := load(ctx, c, goroutines, begin.Add(length))
	elapsed := time.Since(begin)
	if err != nil {
		return result{}, err
	}
	clientAfter, remoteAfter, err := cpu(ctx, server)
	if err != nil {
		return result{}, err
	}
	slices.Sort(took)
	n := float64(len(took))
	return result{
		perSecond: n / elapsed.Seconds(), clientCPU: (clientAfter - client) / n * 1e6, serverCPU: (remoteAfter - remote) / n * 1e6,
		p50: took[len(took)/2], p99: took[len(took)*99/100],
	}, nil
}

// load decides as fast as it can until end and returns how long each decision took.
func load(ctx context.Context, c contender, goroutines int, end time.Time) (all []time.Duration, err error) {
	var mu sync.Mutex
	var group sync.WaitGroup
	for g := range goroutines {
		group.Go(func() {
			took, failure := time.Duration(0), error(nil)
			var mine []time.Duration
			for i, begin := g*7919, time.Now(); failure == nil && begin.Before(end); i++ {
				failure = c.decide(ctx, names[i%users])
				now := time.Now()
				took, begin = now.Sub(begin), now
				mine = append(mine, took)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
			if failure != nil {
				err = failure
			}
		})
	}
	group.Wait()
	return all, err
}

// cpu returns the seconds of processor time that this process and the server have used.
func cpu(ctx context.Context, server *redis.Client) (client, remote float64, err error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, 0, err
	}
	client = time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	info, err := server.Info(ctx, "cpu").Result()
	for _, name := range []string{"used_cpu_sys:", "used_cpu_user:"} {
		_, rest, _ := strings.Cut(info, name)
		value, _ := strconv.ParseFloat(strings.TrimSpace(strings.SplitN(rest, "\r", 2)[0]), 64)
		remote += value
	}
	return client, remote, err
}

// median is that of what f says of each round.
func median(list []result, f func(result) float64) float64 {
	values := make([]float64, len(list))
	for i, r := range list {
		values[i] = f(r)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
