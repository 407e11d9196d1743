package httpmw

import (
	"io"
	"net/http"
	"reflect"
	"sync"
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

// abilities are known by the type of the writer, where it unwraps to no other: asking takes longer than
// all else that is done for a request here.
var abilities sync.Map //nolint:gochecknoglobals // reflect.Type to ability; types do not change

func abilityOf(w http.ResponseWriter) ability {
	t := reflect.TypeOf(w)
	if known, ok := abilities.Load(t); ok {
		return known.(ability) //nolint:forcetypeassert // nothing else is in there
	}
	can := lookAt(w, t)
	if _, ok := w.(unwrapper); !ok {
		abilities.Store(t, can)
	}
	return can
}

// lookAt counts w as hijacking also where it only unwraps to one that does: http.ResponseController
// would find that, and go past the guard.
func lookAt(w http.ResponseWriter, t reflect.Type) ability {
	_, flush := w.(http.Flusher)
	_, from := w.(io.ReaderFrom)
	can := ability{flush: flush, from: from, hijack: reaches[http.Hijacker](w), release: reaches[deadliner](w), room: noRoom}
	if can.hijack && t.Kind() == reflect.Pointer && t.Elem().Name() == "response" && t.Elem().PkgPath() == "net/http" {
		can.room = room
	}
	return can
}

// unwrapper is how http.ResponseController finds the writer inside.
type unwrapper interface{ Unwrap() http.ResponseWriter }

// reaches tells whether http.ResponseController would find a T in w.
func reaches[T any](w http.ResponseWriter) bool {
	for {
		if _, ok := w.(T); ok {
			return true
		}
		u, ok := w.(unwrapper)
		if !ok {
			return false
		}
		w = u.Unwrap()
	}
}
