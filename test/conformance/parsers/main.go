// Parses HTTP/1.1 requests with Go's net/http: one JSON line with a latin1 message in, one JSON line with what it means out.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"sort"
)

type request struct {
	Method   string      `json:"method"`
	Target   string      `json:"target"`
	Host     string      `json:"host"`
	Headers  [][2]string `json:"headers"`
	Body     string      `json:"body"`
	Trailers [][2]string `json:"trailers"`
	Done     bool        `json:"done"`
}

type answer struct {
	Requests []request `json:"requests"`
	Error    *string   `json:"error"`
}

// JSON strings carry one character per byte, both ways.
func toBytes(text string) []byte {
	out := make([]byte, 0, len(text))
	for _, char := range text {
		out = append(out, byte(char))
	}
	return out
}

func toText(data []byte) string {
	runes := make([]rune, len(data))
	for i, b := range data {
		runes[i] = rune(b)
	}
	return string(runes)
}

func pairs(header http.Header) [][2]string {
	out := [][2]string{}
	for name, values := range header {
		for _, value := range values {
			out = append(out, [2]string{name, toText([]byte(value))})
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i][0] < out[j][0] })
	return out
}

func parse(data []byte) answer {
	reader := bufio.NewReader(bytes.NewReader(data))
	result := answer{Requests: []request{}}
	for {
		if _, err := reader.Peek(1); err == io.EOF {
			return result
		}
		parsed, err := http.ReadRequest(reader)
		if err == nil {
			one := request{Method: parsed.Method, Target: toText([]byte(parsed.RequestURI)), Host: parsed.Host, Headers: pairs(parsed.Header)}
			var body []byte
			body, err = io.ReadAll(parsed.Body)
			one.Body = toText(body)
			one.Done = err == nil
			one.Trailers = pairs(parsed.Trailer)
			result.Requests = append(result.Requests, one)
		}
		if err != nil {
			text := err.Error()
			result.Error = &text
			return result
		}
	}
}

func main() {
	scanner := bufio.NewScanner(os.Stdin)
	scanner.Buffer(make([]byte, 1<<20), 1<<26)
	for scanner.Scan() {
		var message string
		if err := json.Unmarshal(scanner.Bytes(), &message); err != nil {
			panic(err)
		}
		line, err := json.Marshal(parse(toBytes(message)))
		if err != nil {
			panic(err)
		}
		os.Stdout.Write(append(line, '\n'))
	}
}
