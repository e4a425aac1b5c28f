// A proxyless grpc-go client that does what the lines on its standard input ask for: one JSON object in, one JSON object out.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	_ "google.golang.org/grpc/xds"
)

type question struct {
	ID       int               `json:"id"`
	Kind     string            `json:"kind"`
	Target   string            `json:"target"`
	Path     string            `json:"path"`
	Count    int               `json:"count"`
	Metadata map[string]string `json:"metadata"`
	Together bool              `json:"together"`
}

type answer struct {
	ID       int            `json:"id"`
	Counts   map[string]int `json:"counts"`
	Sequence []string       `json:"sequence"`
}

// Messages are bytes as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "raw" }

func (rawCodec) Marshal(value any) ([]byte, error) { return *value.(*[]byte), nil }

func (rawCodec) Unmarshal(data []byte, value any) error {
	*value.(*[]byte) = append([]byte(nil), data...)
	return nil
}

var (
	clients = map[string]*grpc.ClientConn{}
	lock    sync.Mutex
)

func clientOf(target string) (*grpc.ClientConn, error) {
	lock.Lock()
	defer lock.Unlock()
	if client, known := clients[target]; known {
		return client, nil
	}
	client, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		clients[target] = client
	}
	return client, err
}

func call(asked question) string {
	client, err := clientOf(asked.Target)
	if err != nil {
		return "error: " + err.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ctx = metadata.NewOutgoingContext(ctx, metadata.New(asked.Metadata))
	in, out := []byte("x"), []byte{}
	if err := client.Invoke(ctx, asked.Path, &in, &out, grpc.ForceCodec(rawCodec{})); err != nil {
		return fmt.Sprintf("error %d: %s", status.Code(err), status.Convert(err).Message())
	}
	return string(out)
}

// One call after the other, until told to stop.
type background struct {
	stop chan struct{}
	done chan []string
}

func startBackground(asked question) background {
	running := background{stop: make(chan struct{}), done: make(chan []string, 1)}
	go func() {
		var sequence []string
		for {
			select {
			case <-running.stop:
				running.done <- sequence
				return
			case <-time.After(5 * time.Millisecond):
				sequence = append(sequence, call(asked))
			}
		}
	}()
	return running
}

func sequenceOf(asked question) []string {
	sequence := make([]string, asked.Count)
	if !asked.Together {
		for i := range sequence {
			sequence[i] = call(asked)
		}
		return sequence
	}
	var all sync.WaitGroup
	for i := range sequence {
		all.Add(1)
		go func() {
			defer all.Done()
			sequence[i] = call(asked)
		}()
	}
	all.Wait()
	return sequence
}

func main() {
	var writing sync.Mutex
	reply := func(id int, sequence []string) {
		counts := map[string]int{}
		for _, who := range sequence {
			counts[who]++
		}
		if sequence == nil {
			sequence = []string{}
		}
		line, _ := json.Marshal(answer{id, counts, sequence})
		writing.Lock()
		defer writing.Unlock()
		fmt.Println(string(line))
	}
	running := map[string]background{}
	reply(0, nil)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var asked question
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			fmt.Fprintln(os.Stderr, "not a question:", err)
			os.Exit(2)
		}
		key := asked.Target + " " + asked.Path
		switch asked.Kind {
		case "start":
			running[key] = startBackground(asked)
			reply(asked.ID, nil)
		case "stop":
			close(running[key].stop)
			go func(ended background) { reply(asked.ID, <-ended.done) }(running[key])
		default:
			go func() { reply(asked.ID, sequenceOf(asked)) }()
		}
	}
}
