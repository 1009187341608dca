// The shop's prices over HTTP; with -restock, the worker that counts what is in store.
package main

import (
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

type article struct {
	Name     string `json:"name"`
	Price    int    `json:"price_minor"`
	Currency string `json:"currency"`
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "where to answer")
	restock := flag.Bool("restock", false, "count what is in store, again and again")
	flag.Parse()
	if *restock {
		work()
		return
	}
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode([]article{
			{"tea", 450, os.Getenv("CURRENCY")},
			{"coffee", 690, os.Getenv("CURRENCY")},
		})
	})
	log.Fatal(http.ListenAndServe(*listen, nil))
}

// The worker answers nobody: it has no port, and ends when it is asked to.
func work() {
	interval, err := time.ParseDuration(os.Getenv("INTERVAL"))
	if err != nil {
		log.Fatalf("INTERVAL: %v", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	for {
		log.Print("counted what is in store")
		select {
		case <-time.After(interval):
		case <-stop:
			return
		}
	}
}
