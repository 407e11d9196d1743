package httpmw

import (
	"io"
	"net/http"
	"reflect"
	"time"
)

// ability is what a ResponseWriter can do besides.
type ability struct {
	flush, hijack, from bool

	release bool  // what blocks in it can be released
	room    int32 // how many bytes it takes without sending any, and so without blocking; guarded by mu
}

// room is what net/http's writer of HTTP/1.1 holds back before it sends anything: its
// bufferBeforeChunkingSize.
const room = 2048

// noRoom is that of other writers, for which even a header may have to be sent; blocking is more than
// there is room for anywhere.
const (
	noRoom   = -1
	blocking = 1 << 20
)

// deadliner is what a writer has whose blocked writes can be released.
type deadliner interface {
	SetWriteDeadline(deadline time.Time) error
}

// errorFlusher is what http.ResponseController prefers to http.Flusher.
type errorFlusher interface{ FlushError() error }

// abilityOf looks at w. It counts as hijacking where it only unwraps to one that does:
// http.ResponseController would find that, and go past the guard.
func abilityOf(w http.ResponseWriter) ability {
	if _, ok := w.(interface { // net/http's own of HTTP/1.1
		http.Flusher
		http.Hijacker
		io.ReaderFrom
		deadliner
	}); ok {
		can := ability{flush: true, hijack: true, from: true, release: true, room: noRoom}
		if t := reflect.TypeOf(w); t.Kind() == reflect.Pointer && t.Elem().Name() == "response" && t.Elem().PkgPath() == "net/http" {
			can.room = room
		}
		return can
	}
	_, flush := w.(http.Flusher)
	_, from := w.(io.ReaderFrom)
	return ability{flush: flush, from: from, hijack: reaches[http.Hijacker](w), release: reaches[deadliner](w), room: noRoom}
}

// reaches tells whether http.ResponseController would find a T in w.
func reaches[T any](w http.ResponseWriter) bool {
	for {
		if _, ok := w.(T); ok {
			return true
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		w = u.Unwrap()
	}
}
